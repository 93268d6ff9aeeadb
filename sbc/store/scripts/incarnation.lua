-- A number above all that were given out before. KEYS: the last one. ARGV: what it must be above besides.
-- With a second argument none is given out: the count is brought up to the first, for a store that has lost some of it.
local last = tonumber(redis.pcall('GET', KEYS[1]) or '') or 0
local mine = math.max(last, tonumber(ARGV[1]))
if not ARGV[2] then mine = mine + 1 end
if mine > last then redis.call('SET', KEYS[1], string.format('%.0f', mine)) end
return mine
