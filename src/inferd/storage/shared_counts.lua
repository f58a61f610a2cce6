-- What several gateways count together. One call is one atomic step, on the server's own clock.
--
-- KEYS: 1 what is known of gateways, 2 when each was last heard of; then three for each counter:
-- requests in flight by gateway, what the window holds, its ticks in order.
-- ARGV: 1 what to do, 2 the gateway, 3 its session; then what each step says.

local TICK_US = 5000
local WINDOW_TICKS = 12000
local HEARD_US = 3000000
local SILENT_US = 1200000
local SECOND_TICKS = 200
local CALM_US = 1500000
local WINDOW_US = 65000000
local WINDOW_MS = 65000
local DAY_MS = 86400000

local time = redis.call('TIME')
local us = time[1] * 1000000 + time[2]
local tick = math.floor(us / TICK_US)
local todo, gateway, session = ARGV[1], ARGV[2], ARGV[3]
local known, beats = KEYS[1], KEYS[2]

local function is_heard(name)
  local at = redis.call('ZSCORE', beats, name)
  return at and tonumber(at) >= us - HEARD_US
end

-- A gateway whose session is another one, or which was given up, must say again what it holds.
local function is_strange()
  return redis.call('HGET', known, 's:' .. gateway) ~= session or not is_heard(gateway)
end

-- Counts are shared once every gateway has said what it holds, since the last one that came.
local function is_shared()
  if redis.call('HGET', known, 'shared') == '1' then return 1 end
  local since = tonumber(redis.call('HGET', known, 'since') or us)
  if us < since + CALM_US then return 0 end
  local all = redis.call('HGETALL', known)
  local awaited = {}
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 2) == 'e:' then
      if all[i + 1] == '0' and us < since + WINDOW_US then return 0 end
      awaited[#awaited + 1] = all[i]
    end
  end
  redis.call('HSET', known, 'shared', '1')
  for _, name in ipairs(awaited) do redis.call('HDEL', known, name) end
  return 1
end

local function remove(held, ticks, member)
  local r = tonumber(redis.call('HGET', held, 'r:' .. member) or 0)
  local t = tonumber(redis.call('HGET', held, 't:' .. member) or 0)
  redis.call('HINCRBY', held, 'R', -r)
  redis.call('HINCRBY', held, 'T', -t)
  redis.call('HDEL', held, 'r:' .. member, 't:' .. member)
  redis.call('ZREM', ticks, member)
end

-- It may be cut off and letting in as much as it had used: what it holds is kept for it.
local function is_silent(name)
  local at = tonumber(redis.call('ZSCORE', beats, name) or us)
  return at < us - SILENT_US and at >= us - WINDOW_US
end

local function forget(held, ticks)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', ticks, '-inf', tick)) do
    if is_silent(string.match(member, '^[^:]*')) then
      redis.call('ZADD', ticks, tick + SECOND_TICKS, member)
    else
      remove(held, ticks, member)
    end
  end
end

local function in_flight(running)
  local all, sum = redis.call('HGETALL', running), 0
  for i = 1, #all, 2 do
    if is_heard(all[i]) then
      sum = sum + tonumber(all[i + 1])
    else
      redis.call('HDEL', running, all[i])
    end
  end
  return sum
end

-- In microseconds: until so many requests and tokens are forgotten.
local function wait(held, ticks, requests, tokens)
  local at = 0
  while true do
    local page = redis.call('ZRANGE', ticks, at, at + 99, 'WITHSCORES')
    if #page == 0 then return WINDOW_TICKS * TICK_US end
    for i = 1, #page, 2 do
      requests = requests - tonumber(redis.call('HGET', held, 'r:' .. page[i]) or 0)
      tokens = tokens - tonumber(redis.call('HGET', held, 't:' .. page[i]) or 0)
      if requests <= 0 and tokens <= 0 then return tonumber(page[i + 1]) * TICK_US - us end
    end
    at = at + 100
  end
end

local function add(held, ticks, at, requests, tokens)
  local member = gateway .. ':' .. at
  redis.call('HINCRBY', held, 'R', requests)
  redis.call('HINCRBY', held, 'T', tokens)
  redis.call('HINCRBY', held, 'r:' .. member, requests)
  redis.call('HINCRBY', held, 't:' .. member, tokens)
  redis.call('ZADD', ticks, at + 1 + WINDOW_TICKS, member)
  redis.call('PEXPIRE', held, WINDOW_MS)
  redis.call('PEXPIRE', ticks, WINDOW_MS)
end

-- 4 tokens, 5 "1" if the gateway says yes where counts are not shared, "" if it has not said;
-- then for each counter its bounds in flight, of requests and of tokens, -1 for none.
local function enter()
  if is_strange() then return {'strange'} end
  redis.call('ZADD', beats, us, gateway)
  local tokens, said = tonumber(ARGV[4]), ARGV[5]
  local counters = (#KEYS - 2) / 3
  local shared = is_shared()
  if shared == 0 and said == '' then return {'apart', tick} end
  local worst = {}
  for i = 0, counters - 1 do
    local running, held, ticks = KEYS[3 + i * 3], KEYS[4 + i * 3], KEYS[5 + i * 3]
    local concurrent = tonumber(ARGV[6 + i * 3])
    local requests = tonumber(ARGV[7 + i * 3])
    local most = tonumber(ARGV[8 + i * 3])
    local function refuse(measure, to_wait)
      if not worst[1] or to_wait > worst[3] then worst = {i, measure, to_wait} end
    end
    if shared == 1 then
      if requests >= 0 or most >= 0 then forget(held, ticks) end
      if concurrent >= 0 and in_flight(running) >= concurrent then refuse(0, -1) end
      if requests >= 0 then
        local over = tonumber(redis.call('HGET', held, 'R') or 0) + 1 - requests
        if over > 0 then refuse(1, wait(held, ticks, over, 0)) end
      end
      if most >= 0 then
        local over = tonumber(redis.call('HGET', held, 'T') or 0) + tokens - most
        if over > 0 then refuse(2, wait(held, ticks, 0, over)) end
      end
    end
  end
  if worst[1] then return {'no', tick, shared, worst[1], worst[2], worst[3]} end
  for i = 0, counters - 1 do
    local running, held, ticks = KEYS[3 + i * 3], KEYS[4 + i * 3], KEYS[5 + i * 3]
    redis.call('HINCRBY', running, gateway, 1)
    redis.call('PEXPIRE', running, DAY_MS)
    if ARGV[7 + i * 3] ~= '-1' or ARGV[8 + i * 3] ~= '-1' then
      add(held, ticks, tick, 1, tokens)
    end
  end
  return {'yes', tick, shared}
end

-- 4 tick of the entry, 5 requests in flight, 6 requests, 7 tokens: what to add to each counter.
local function change()
  if redis.call('HGET', known, 's:' .. gateway) ~= session then return 0 end
  local member = gateway .. ':' .. ARGV[4]
  for i = 3, #KEYS, 3 do
    if ARGV[5] ~= '0' and redis.call('HEXISTS', KEYS[i], gateway) == 1 then
      if redis.call('HINCRBY', KEYS[i], gateway, ARGV[5]) <= 0 then
        redis.call('HDEL', KEYS[i], gateway)
      end
    end
    if redis.call('HEXISTS', KEYS[i + 1], 'r:' .. member) == 1 then
      redis.call('HINCRBY', KEYS[i + 1], 'R', ARGV[6])
      redis.call('HINCRBY', KEYS[i + 1], 'T', ARGV[7])
      redis.call('HINCRBY', KEYS[i + 1], 'r:' .. member, ARGV[6])
      redis.call('HINCRBY', KEYS[i + 1], 't:' .. member, ARGV[7])
    end
  end
  return 1
end

-- Sessions of gateways that nobody has heard of for a window.
local function forget_sessions()
  for _, field in ipairs(redis.call('HKEYS', known)) do
    if string.sub(field, 1, 2) == 's:' then
      local at = redis.call('ZSCORE', beats, string.sub(field, 3))
      if not at or tonumber(at) < us - WINDOW_US then redis.call('HDEL', known, field) end
    end
  end
end

-- Who was heard of last must say what it holds before counts are shared again.
local function await_all()
  redis.call('HSET', known, 'shared', '0', 'since', us)
  local newest = redis.call('ZRANGE', beats, -1, -1, 'WITHSCORES')
  if newest[1] then
    local from = tonumber(newest[2]) - HEARD_US
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', beats, from, '+inf')) do
      redis.call('HSETNX', known, 'e:' .. name, '0')
    end
  end
  for i = 5, #ARGV do redis.call('HSETNX', known, 'e:' .. ARGV[i], '0') end
end

-- 4 "1" if the gateway admitted requests that nobody else knows of; then whom it knew.
local function join()
  if ARGV[4] == '1' or redis.call('HEXISTS', known, 'since') == 0 then await_all() end
  redis.call('HSET', known, 's:' .. gateway, session)
  if redis.call('HGET', known, 'shared') ~= '1' then
    redis.call('HSET', known, 'e:' .. gateway, '1')
  end
  redis.call('ZADD', beats, us, gateway)
  forget_sessions()
  return {'yes', tick}
end

-- 4 requests in flight; then tick, requests, tokens of each entry: all that the gateway holds.
local function seed()
  local running, held, ticks = KEYS[3], KEYS[4], KEYS[5]
  if redis.call('HGET', known, 's:' .. gateway) ~= session then return 0 end
  redis.call('HDEL', running, gateway)
  if tonumber(ARGV[4]) > 0 then
    redis.call('HSET', running, gateway, ARGV[4])
    redis.call('PEXPIRE', running, DAY_MS)
  end
  forget(held, ticks)
  for _, member in ipairs(redis.call('ZRANGE', ticks, 0, -1)) do
    if string.sub(member, 1, #gateway + 1) == gateway .. ':' then remove(held, ticks, member) end
  end
  for i = 5, #ARGV, 3 do add(held, ticks, ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
  return 1
end

local function beat()
  if is_strange() then return {'strange'} end
  redis.call('ZADD', beats, us, gateway)
  redis.call('ZREMRANGEBYSCORE', beats, '-inf', us - WINDOW_US)
  if redis.call('HEXISTS', known, 'e:' .. gateway) == 1 then
    redis.call('HSET', known, 'e:' .. gateway, '1')
  end
  local shared = is_shared()
  return {'yes', tick, shared, unpack(redis.call('ZRANGEBYSCORE', beats, us - HEARD_US, '+inf'))}
end

local function leave()
  if redis.call('HGET', known, 's:' .. gateway) == session then
    redis.call('ZREM', beats, gateway)
    redis.call('HDEL', known, 's:' .. gateway, 'e:' .. gateway)
  end
  return 1
end

local steps =
  {enter = enter, change = change, join = join, seed = seed, beat = beat, leave = leave}
return steps[todo]()
