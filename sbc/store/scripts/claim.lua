-- Takes records over: each is stamped with the epoch of its new owner and keeps its version, so that whoever had it can
-- neither overwrite nor finish it any more. KEYS: records. ARGV: our epoch. Returns for each what it holds, as it is now;
-- nil where there is none; a number, the epoch of its owner, where that is later than ours: then it stays as it was.
local ours = tonumber(ARGV[1])
local found = {}
for i, key in ipairs(KEYS) do
  local value = redis.pcall('GET', key)
  if type(value) ~= 'string' then
    found[i] = false
  else
    local epoch, rest = string.match(value, '^1 (%d+) (%d+\n.*)$')
    epoch = tonumber(epoch)
    if epoch and epoch > ours then
      found[i] = epoch
    else
      if epoch and epoch < ours then
        value = '1 ' .. ARGV[1] .. ' ' .. rest
        redis.call('SET', key, value, 'KEEPTTL')
      end
      found[i] = value
    end
  end
end
return found
