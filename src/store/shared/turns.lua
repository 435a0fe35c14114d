-- Takes one turn of each limit, or of none of them where one has no room; says in how many ms it may
-- be worth asking again then. Turns are counted in parts of a span, and each counts until its part
-- is a whole span old: a little longer than it must, never shorter.
-- KEYS: a hash for each limit, of turns by part.
-- ARGV: parts of a span; then for each limit its amount and the length of a part in ms.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local parts, wait = tonumber(ARGV[1]), 0
for place, key in ipairs(KEYS) do
  local amount, length = tonumber(ARGV[2 * place]), tonumber(ARGV[2 * place + 1])
  local part, total, oldest = math.floor(now / length), 0, nil
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local at = tonumber(fields[i])
    if at + parts < part then
      redis.call('HDEL', key, fields[i])
    else
      total = total + tonumber(fields[i + 1])
      oldest = math.min(oldest or at, at)
    end
  end
  if total >= amount then
    -- A limit of nothing has no turns to wait for.
    local free = ((oldest or part) + parts + 1) * length
    wait = math.max(wait, free - now, 1)
  end
end
if wait > 0 then
  return wait
end
for place, key in ipairs(KEYS) do
  local length = tonumber(ARGV[2 * place + 1])
  redis.call('HINCRBY', key, string.format('%.0f', math.floor(now / length)), 1)
  redis.call('PEXPIRE', key, (parts + 2) * length)
end
return 0
