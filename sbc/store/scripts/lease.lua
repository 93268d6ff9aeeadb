-- Who of the nodes that share these keys is active. An owner has the lease as long as it renews it; each change of owner
-- has a later token. KEYS: lease, token, presence. ARGV: what, me, token that I know or own, time to live in ms, to whom.
-- Returns {1 when the lease is mine, its holder or '', the latest token, other nodes seen lately}.
local what, me, known, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local holder = redis.call('GET', KEYS[1]) or ''
local token = tonumber(redis.call('GET', KEYS[2]) or '0') or 0
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local mine = false

local function hold(owner, later)
  if later ~= token then redis.call('SET', KEYS[2], string.format('%.0f', later)) end
  redis.call('SET', KEYS[1], owner, 'PX', ttl)
  token, holder = later, owner
end

if what == 'force' or (what == 'claim' and (holder == '' or holder == me)) then
  hold(me, math.max(token, known) + 1)
  mine = true
elseif what == 'keep' then
  -- also where it had expired and nobody took it, and where the store has forgotten all
  mine = known > token or (known == token and (holder == '' or holder == me))
  if mine then hold(me, known) end
elseif what == 'give' then
  if known >= token then hold(ARGV[5], known) end
elseif what == 'leave' then
  if holder == me then
    redis.call('DEL', KEYS[1])
    holder = ''
  end
end

if what == 'leave' then redis.call('ZREM', KEYS[3], me) else redis.call('ZADD', KEYS[3], now, me) end
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - 60000)
redis.call('ZREMRANGEBYSCORE', KEYS[3], now + 1000, '+inf') -- the clock here was set back: nobody is seen later than now
local others = redis.call('ZCOUNT', KEYS[3], now - math.floor(ttl * 1.5), '+inf')
if what ~= 'leave' then others = others - 1 end
return {mine and 1 or 0, holder, token, others}
