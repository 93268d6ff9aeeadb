-- Ends a call: its CDR goes to the outbox, its record and its place in the index go away, all or nothing.
-- KEYS: record, index of the shard, CDR stream. ARGV: member, field name, CDR. Returns the id of the stream's entry.
-- XADD comes first: it alone can be refused (no memory, wrong type), and then nothing has changed yet.
local identity = redis.call('XADD', KEYS[3], '*', ARGV[2], ARGV[3])
redis.call('DEL', KEYS[1])
redis.pcall('SREM', KEYS[2], ARGV[1])
return identity
