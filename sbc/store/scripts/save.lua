-- Writes the record of a call, unless a newer one is there. Header of a value: "1 <epoch> <version>\n".
-- KEYS: record, index of the shard; of a pair also its latest token. ARGV: header with record, time to live in seconds,
-- member, and what an owner must be above to be later than us: our epoch, or for a call that another worker of the node
-- gave us, the node's last; of a pair also our token.
-- Returns 1 written, 0 the same or a newer version is there, -1 a later owner holds the call, -2 a later node is active.
if KEYS[3] and (tonumber(redis.pcall('GET', KEYS[3]) or '') or 0) > tonumber(ARGV[5]) then return -2 end
local held = redis.pcall('GETRANGE', KEYS[1], 0, 47)
local epoch, version
if type(held) == 'string' and held ~= '' then
  epoch, version = string.match(held, '^1 (%d+) (%d+)\n')
end
if epoch then
  local our_epoch, our_version = string.match(ARGV[1], '^1 (%d+) (%d+)\n')
  epoch, our_epoch = tonumber(epoch), tonumber(our_epoch)
  if epoch > tonumber(ARGV[4]) then return -1 end
  if epoch == our_epoch and tonumber(version) >= tonumber(our_version) then
    redis.call('EXPIRE', KEYS[1], ARGV[2]) -- whoever writes it again may do so because the clock here was set
    return 0
  end
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
  return 1
end
-- new, or foreign content in our place: SET replaces any type, and the index must know the member
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
local added = redis.pcall('SADD', KEYS[2], ARGV[3])
if type(added) == 'table' then
  redis.call('DEL', KEYS[2])
  redis.call('SADD', KEYS[2], ARGV[3])
end
return 1
