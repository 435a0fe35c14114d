-- Says in which epoch this server counts. One that was started anew, or that took another's place,
-- may have forgotten something, so that a new epoch begins and everybody announces what they know.
-- KEYS: epoch, nodes, run.  ARGV: the server's run, a name for a new epoch.
local epoch = redis.call('GET', KEYS[1])
if epoch and redis.call('GET', KEYS[3]) == ARGV[1] then
  return epoch
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
epoch = ARGV[2] .. '@' .. string.format('%.0f', now)
redis.call('SET', KEYS[1], epoch)
redis.call('SET', KEYS[3], ARGV[1])
redis.call('DEL', KEYS[2])
return epoch
