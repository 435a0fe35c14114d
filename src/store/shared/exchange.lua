-- Says which targets this node leaves alone, and hears which the others do, each with the time in
-- ms since they said so; and of which limits somebody wants what others keep without using it.
-- KEYS: wanted, health.  ARGV: node, its hints ("" for none).
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - 1000))
local wanted = redis.call('ZRANGE', KEYS[1], 0, 199)
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[2], ARGV[1])
else
  redis.call('HSET', KEYS[2], ARGV[1], string.format('%.0f ', now) .. ARGV[2])
end
local hints = {}
local fields = redis.call('HGETALL', KEYS[2])
for i = 1, #fields, 2 do
  local at, hint = string.match(fields[i + 1], '^(%d+) (.*)$')
  if now - tonumber(at) > 5000 then
    redis.call('HDEL', KEYS[2], fields[i])
  elseif fields[i] ~= ARGV[1] then
    table.insert(hints, string.format('%.0f', now - tonumber(at)))
    table.insert(hints, hint)
  end
end
return { wanted, hints }
