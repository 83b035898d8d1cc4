-- Limits that several gateways count together. Times are Redis' own, in microseconds.
--
-- ARGV: a verb, the name of the process that asks, and its lease: how long what it holds lasts without a word from it.
-- For take and settle each key has four arguments more: kind, limit, amount, and what `settle` was told at the taking.
--   rate   a bucket that holds a minute's worth and fills steadily: the time at which it is full, and its limit
--   held   requests at once: what each process holds, and until when
--   spent  an amount that only grows, until its key expires

local MINUTE, SOON = 60000000, 1000000
-- Of one request or token so much is forgiven, so that sums of fractions let exactly as many pass as the limit says.
local SLACK = 0.001
-- Milliseconds after which the last hold is over at any rate.
local LONGEST_HOLD = 130000
-- Milliseconds after which a bucket is forgotten at any rate.
local DAY = 86400000

local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local verb, me, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])

local function whole(number)
  local text = string.format('%.0f', number)
  -- Which is no number to Redis.
  return text == '-0' and '0' or text
end

local function full_at(key, limit)
  local at, before = string.match(redis.call('GET', key) or '', '^(%d+) (%S+)$')
  at = tonumber(at) or 0
  if at <= now then
    return now
  end
  -- The limit may have changed: what was taken stays taken.
  return now + (at - now) * tonumber(before) / limit
end

local function set_full_at(key, limit, at)
  if at > now then
    redis.call('SET', key, whole(at) .. ' ' .. limit, 'PX', whole(math.min((at - now) / 1000 + 1, DAY)))
  else
    redis.call('DEL', key)
  end
end

local function held(key)
  local all, mine = 0, 0
  local entries = redis.call('HGETALL', key)
  for i = 1, #entries, 2 do
    local count, till = string.match(entries[i + 1], '^(%d+) (%d+)$')
    if tonumber(till) <= now then
      redis.call('HDEL', key, entries[i])
    else
      all = all + count
      if entries[i] == me then
        mine = tonumber(count)
      end
    end
  end
  return all, mine
end

local function hold(key, count)
  if count > 0 then
    redis.call('HSET', key, me, whole(count) .. ' ' .. whole(now + lease))
    redis.call('PEXPIRE', key, whole(lease / 1000 + 1))
  else
    redis.call('HDEL', key, me)
  end
end

-- Each kind: `look` returns how long to wait (0: not at all) and how things stand, `take` how they stand afterwards.
local KINDS = {
  rate = {
    look = function(key, limit, amount)
      if limit <= 0 then
        return MINUTE, now
      end
      local at, each = full_at(key, limit), MINUTE / limit
      local wait = at + math.min(amount, limit) * each - MINUTE - now
      return wait > SLACK * each and math.max(1, wait) or 0, at
    end,
    take = function(key, limit, amount)
      local at = full_at(key, limit) + amount * MINUTE / limit
      set_full_at(key, limit, at)
      return at
    end,
    -- What is given back is at most what time has not filled up since.
    settle = function(key, limit, amount, till)
      local at, moved = full_at(key, limit), amount * MINUTE / limit
      set_full_at(key, limit, at + math.max(moved, math.min(0, now - till)))
    end,
  },
  held = {
    look = function(key, limit, amount)
      local all = held(key)
      return all + amount > limit and SOON or 0, all
    end,
    take = function(key, limit, amount)
      local all, mine = held(key)
      hold(key, mine + amount)
      return all + amount
    end,
    settle = function(key, limit, amount)
      local _, mine = held(key)
      hold(key, math.max(0, mine + amount))
    end,
  },
  spent = {
    look = function(key, limit, amount)
      local spent = tonumber(redis.call('GET', key) or 0)
      return spent + amount > limit and SOON or 0, spent
    end,
    take = function(key, limit, amount, lasts)
      local spent = redis.call('INCRBY', key, whole(amount))
      redis.call('PEXPIRE', key, whole(lasts / 1000))
      return spent
    end,
    -- A counter that has run out meanwhile gives nothing back.
    settle = function(key, limit, amount, lasts)
      if amount > 0 or redis.call('EXISTS', key) == 1 then
        redis.call('INCRBY', key, whole(amount))
        redis.call('PEXPIRE', key, whole(lasts / 1000))
      end
    end,
  },
}

local function each(act)
  for i, key in ipairs(KEYS) do
    act(KINDS[ARGV[4 * i]], key, tonumber(ARGV[4 * i + 1]), tonumber(ARGV[4 * i + 2]), tonumber(ARGV[4 * i + 3]))
  end
end

local VERBS = {}

-- All or nothing: whether it was granted, the time, and per key how long to wait and how things stand.
function VERBS.take()
  local answer, granted = { 0, now }, 1
  each(function(kind, key, limit, amount)
    local wait, state = kind.look(key, limit, amount)
    granted = wait > 0 and 0 or granted
    table.insert(answer, wait)
    table.insert(answer, state)
  end)
  if granted == 1 then
    local place = 4
    each(function(kind, key, limit, amount, extra)
      answer[place] = kind.take(key, limit, amount, extra)
      place = place + 2
    end)
  end
  answer[1] = granted
  return answer
end

-- The truth in place of the estimate: amounts are what it was more.
function VERBS.settle()
  each(function(kind, key, limit, amount, extra)
    kind.settle(key, limit, amount, extra)
  end)
  return 1
end

-- What this process really holds of the one key, said again before its lease ends.
function VERBS.renew()
  held(KEYS[1])
  hold(KEYS[1], tonumber(ARGV[4]))
  return 1
end

-- A sign of life (the last one has no lease), with upstreams that want to be left alone and for how long; the answer is the number of processes
-- alive, and all such upstreams.
function VERBS.beat()
  local lives, holds = KEYS[1], KEYS[2]
  redis.call('ZADD', lives, whole(now + lease), me)
  redis.call('ZREMRANGEBYSCORE', lives, '-inf', whole(now))
  if lease > 0 then
    redis.call('PEXPIRE', lives, whole(lease / 1000 + 1))
  end
  for i = 4, #ARGV, 2 do
    local till = now + ARGV[i + 1]
    if till > tonumber(redis.call('HGET', holds, ARGV[i]) or 0) then
      redis.call('HSET', holds, ARGV[i], whole(till))
      redis.call('PEXPIRE', holds, LONGEST_HOLD)
    end
  end
  local answer = { redis.call('ZCARD', lives) }
  local entries = redis.call('HGETALL', holds)
  for i = 1, #entries, 2 do
    local left = tonumber(entries[i + 1]) - now
    if left > 0 then
      table.insert(answer, entries[i])
      table.insert(answer, left)
    else
      redis.call('HDEL', holds, entries[i])
    end
  end
  return answer
end

return VERBS[verb]()
