-- Ends a call: its CDR goes to the outbox, its record and its place in the index go away, all or nothing.
-- KEYS: record, index of the shard, CDR stream; of a pair also its latest token. ARGV: member, field name, CDR, what a
-- later owner is above (see save); of a pair also our token.
-- Returns the id of the stream's entry; -1: a later owner holds the call, -2: a later node is active, which will hold
-- it, and nothing has changed. A call without a record is nobody else's: its CDR goes out in any case.
-- XADD comes first: it alone can be refused (no memory, wrong type), and then nothing has changed yet.
local held = redis.pcall('GETRANGE', KEYS[1], 0, 47)
local epoch = type(held) == 'string' and tonumber(string.match(held, '^1 (%d+) ') or '')
if epoch and epoch > tonumber(ARGV[4]) then return -1 end
if epoch and KEYS[4] and (tonumber(redis.pcall('GET', KEYS[4]) or '') or 0) > tonumber(ARGV[5]) then return -2 end
local identity = redis.call('XADD', KEYS[3], '*', ARGV[2], ARGV[3])
redis.call('DEL', KEYS[1])
redis.pcall('SREM', KEYS[2], ARGV[1])
return identity
