-- Writes what one node has used and may still take of each limit, and grants more where there is
-- room. Each claimant writes one field of a limit's hash, with absolute values, so that a repetition
-- changes nothing: "window until held slack used". `used` is a number that counts in its window
-- only, or "r" and pairs "time:amount" that count until their time has come.
-- KEYS: epoch, nodes, wanted, then one for each claim.
-- ARGV: node, the epoch it knows, whether this is the last that it announces, replicas, the length
-- of a lease and of the pause after a new epoch in ms; then for each claim limit, window, used,
-- held, slack, need, ask, the time to live in ms and the field.
local node, replicas, lease = ARGV[1], tonumber(ARGV[4]), tonumber(ARGV[5])
local epoch = redis.call('GET', KEYS[1])
if epoch ~= ARGV[2] then
  return {'0'}
end
if ARGV[3] == '1' then
  redis.call('HSET', KEYS[2], node, '1')
end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local begun = tonumber(string.match(epoch, '@(%d+)$'))
local open = now - begun >= tonumber(ARGV[6]) or redis.call('HLEN', KEYS[2]) >= replicas

local function text(number)
  return string.format('%.0f', number)
end

-- Of the others: used, held and slack, whether one has entered a later window, and what rolls. Of
-- whom nothing rolls any more nothing is left: processes come and go.
local function others(key, own, window)
  local all = { used = 0, held = 0, slack = 0, ahead = false, rolling = {} }
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    if fields[i] ~= own then
      local theirs, till, held, slack, used =
        string.match(fields[i + 1], '^(-?%d+) (%d+) (%d+) (%d+) (.*)$')
      local lives = tonumber(till) > now
      if lives then
        all.held = all.held + tonumber(held)
        all.slack = all.slack + tonumber(slack)
      end
      if string.sub(used, 1, 1) == 'r' then
        for at, amount in string.gmatch(used, '(%d+):(%d+)') do
          if tonumber(at) > now then
            lives = true
            all.used = all.used + tonumber(amount)
            table.insert(all.rolling, text(tonumber(at) - now) .. ':' .. amount)
          end
        end
        if not lives then
          redis.call('HDEL', key, fields[i])
        end
      elseif tonumber(theirs) == window then
        all.used = all.used + tonumber(used)
      elseif tonumber(theirs) > window then
        all.ahead = true
      end
    end
  end
  return all
end

local answer = { '1', open and '1' or '0' }
for place = 4, #KEYS do
  local key, at = KEYS[place], 6 + (place - 4) * 9
  local limit, window, used = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), ARGV[at + 3]
  local held, slack = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5])
  local need, ask, life = tonumber(ARGV[at + 6]), tonumber(ARGV[at + 7]), ARGV[at + 8]
  local own = ARGV[at + 9]
  local mine = 0
  if string.sub(used, 1, 1) == 'r' then
    local kept = {}
    for left, amount in string.gmatch(used, '(%d+):(%d+)') do
      mine = mine + tonumber(amount)
      table.insert(kept, text(now + tonumber(left)) .. ':' .. amount)
    end
    used = 'r' .. table.concat(kept, ',')
  else
    mine = tonumber(used)
  end
  local all = others(key, own, window)
  local free = limit - mine - held - slack - all.used - all.held - all.slack
  local grant = 0
  if ask > 0 and open and not all.ahead and free >= need then
    -- A slice beyond what is asked for, so that the next calls need not ask.
    local slice = math.floor((free - ask) / (8 * replicas))
    grant = math.min(free, ask + math.max(slice, 0))
  end
  if ask > grant and all.slack > 0 then
    redis.call('ZADD', KEYS[3], now, key)
  end
  local field = { ARGV[at + 2], text(now + lease), text(held), text(slack + grant), used }
  redis.call('HSET', key, own, table.concat(field, ' '))
  if life == '0' then
    redis.call('PERSIST', key)
  else
    redis.call('PEXPIRE', key, life)
  end
  for _, value in ipairs({ grant, math.max(free - grant, 0), all.used, all.held, all.slack }) do
    table.insert(answer, text(value))
  end
  table.insert(answer, all.ahead and '1' or '0')
  table.insert(answer, table.concat(all.rolling, ','))
end
return answer
