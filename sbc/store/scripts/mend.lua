-- Removes foreign content from a place of ours, or sets it aside. KEYS: the place, and where to set it aside. ARGV: the
-- type that belongs there: others may have mended it meanwhile, and what they put there stays. Returns whether it did.
local found = redis.call('TYPE', KEYS[1]).ok
if found == ARGV[1] or found == 'none' then return 0 end
if KEYS[2] then redis.call('RENAME', KEYS[1], KEYS[2]) else redis.call('DEL', KEYS[1]) end
return 1
