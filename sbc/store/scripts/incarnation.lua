-- A number above all that were given out before. KEYS: the last one. ARGV: what it must be above besides.
local last = tonumber(redis.pcall('GET', KEYS[1]) or '') or 0
local mine = math.max(last, tonumber(ARGV[1])) + 1
redis.call('SET', KEYS[1], string.format('%.0f', mine))
return mine
