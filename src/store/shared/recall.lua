-- Writes what nodes have used of a limit that do not say so themselves: one that is there says it,
-- and what stands here is its own word or was told before. Nothing of it is held.
-- KEYS: epoch, then a limit for each.
-- ARGV: the epoch that is known; then for each node, window, used and the time to live in ms.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
for place = 2, #KEYS do
  local at = 1 + (place - 2) * 4
  local used, life = ARGV[at + 3], ARGV[at + 4]
  if string.sub(used, 1, 1) == 'r' then
    local kept = {}
    for left, amount in string.gmatch(used, '(%d+):(%d+)') do
      table.insert(kept, string.format('%.0f', now + tonumber(left)) .. ':' .. amount)
    end
    used = 'r' .. table.concat(kept, ',')
  end
  redis.call('HSETNX', KEYS[place], ARGV[at + 1], ARGV[at + 2] .. ' 0 0 0 ' .. used)
  if life ~= '0' then
    redis.call('PEXPIRE', KEYS[place], life)
  end
end
return 1
