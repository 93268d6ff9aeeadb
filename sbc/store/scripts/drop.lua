-- Removes a record and its place in the index, or sets it aside, unless it is a later owner's.
-- KEYS: record, index of the shard, where to set it aside; of a pair also its latest token. ARGV: member, what a later
-- owner is above (see save), seconds for which it is kept aside (0: not at all); of a pair also our token.
-- Returns 1, or -1: a later owner holds it, or is about to, and nothing has changed.
if KEYS[4] and (tonumber(redis.pcall('GET', KEYS[4]) or '') or 0) > tonumber(ARGV[4]) then return -1 end
local held = redis.pcall('GETRANGE', KEYS[1], 0, 47)
local epoch = type(held) == 'string' and tonumber(string.match(held, '^1 (%d+) ') or '')
if epoch and epoch > tonumber(ARGV[2]) then return -1 end
if held ~= '' then
  if ARGV[3] == '0' then
    redis.call('DEL', KEYS[1])
  else
    redis.call('RENAME', KEYS[1], KEYS[3])
    redis.call('EXPIRE', KEYS[3], ARGV[3])
  end
end
redis.pcall('SREM', KEYS[2], ARGV[1])
return 1
