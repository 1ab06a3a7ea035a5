-- What several gateways agree on about budgets. One deployment, one epoch, one hash per budget
-- and window; whatever is done here is done for all keys of a request or for none.
--
-- KEYS: the epoch, who is alive, then one hash per budget and window; behind those of tell and take
-- the hashes of windows before and after them.
-- ARGV: what to do, epoch, worker, now in microseconds, number of the operation, then what it needs:
-- for tell and take how many hashes there are, a block of values for each, and the channel where
-- others are to be called.
--
-- Where a budget rolls over, a window takes over what no base and no claim of the window before
-- stands for, worked out anew each time; and the window before is filled no further than the next
-- one leaves it. So both together never come to more than both have, whatever comes late.
--
-- Amounts are exact however large: numbers here are doubles, so each amount is two of them, whole
-- multiples of 10^12 and the rest. Fields of a hash:
--   e epoch it belongs to    g how often its base was laid, none before the first
--   b base: what the ledger holds of calls no claim stands for, as until:amount:parked;...
--   t sum of claims          S H P sums of what workers told they have spent, held, parked
--   n:<journal> up to which number of it the base holds
--   c: v: s: h: p:<worker> its claim, the last operation that set it, spent, held and parked

local LIMB = 1000000000000
local ZERO = {0, 0}

local function tidy(high, low)
  local carry = math.floor(low / LIMB)
  return {high + carry, low - carry * LIMB}
end

local function read(text)
  if not text or text == '' then return ZERO end
  local sign = 1
  if string.sub(text, 1, 1) == '-' then
    sign, text = -1, string.sub(text, 2)
  end
  local high = #text > 12 and tonumber(string.sub(text, 1, -13)) or 0
  return tidy(sign * high, sign * tonumber(string.sub(text, -12)))
end

local function write(amount)
  local high, low, sign = amount[1], amount[2], ''
  if high < 0 then
    sign, high = '-', -high
    if low > 0 then high, low = high - 1, LIMB - low end
  end
  if high > 0 then return sign .. string.format('%.0f%012.0f', high, low) end
  return sign .. string.format('%.0f', low)
end

local function add(a, b) return tidy(a[1] + b[1], a[2] + b[2]) end
local function sub(a, b) return tidy(a[1] - b[1], a[2] - b[2]) end
local function less(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end

-- A part of what is left, never more than it: doubles may err in the sixteenth digit.
local function share(left, among)
  local part = (left[1] * LIMB + left[2]) / among
  part = math.floor(part - part / 1000000000)
  return part > 0 and tidy(math.floor(part / LIMB), part % LIMB) or ZERO
end

local verb, epoch, worker, now, number = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local BLOCK = 17
-- Who has told nothing for so long is not waited for; what it has claimed counts all the same.
local ALIVE_S = 5
local HOUR_MS = 3600000

local function server_s()
  return tonumber(redis.call('TIME')[1])
end

local function server_run()
  return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)')
end

local function told_epoch()
  return redis.call('HGETALL', KEYS[1])
end

-- An epoch ends with the server process that saw it begin: what another one has may be older.
local known = redis.call('HMGET', KEYS[1], 'id', 'run', 'open')
local is_lost = not known[1] or known[2] ~= server_run()

if verb == 'begin' then
  if is_lost then
    redis.call('DEL', KEYS[1], KEYS[2])
    redis.call('HSET', KEYS[1], 'id', ARGV[6], 'run', server_run(), 'born', ARGV[4], 'open', '0')
  end
  return told_epoch()
end
if is_lost or known[1] ~= epoch then return {'lost'} end
if verb == 'end' then
  redis.call('DEL', KEYS[1])
  return {'ok'}
end
if verb == 'join' then
  redis.call('HSET', KEYS[1], 'w:' .. worker, ARGV[6])
  return told_epoch()
end
if verb == 'open' then
  redis.call('HSET', KEYS[1], 'open', '1')
  return {'ok'}
end
if verb == 'leave' then
  redis.call('ZREM', KEYS[2], worker)
  return {'ok'}
end

local function enter(key, expires_ms)
  if redis.call('HGET', key, 'e') ~= epoch then
    redis.call('DEL', key)
    redis.call('HSET', key, 'e', epoch)
  end
  if expires_ms ~= '0' then
    -- By the worker's clock, which need not be the server's: an hour at least from now.
    local left_ms = math.max(tonumber(expires_ms) - now / 1000, HOUR_MS)
    redis.call('PEXPIRE', key, string.format('%.0f', left_ms))
  end
end

-- Who has not said yet what it had might be taken for gone: no base before all have.
if known[3] ~= '1' and (verb == 'look' or verb == 'lay' or verb == 'take') then
  return {'closed'}
end
if verb == 'look' then
  enter(KEYS[3], ARGV[6])
  return redis.call('HGETALL', KEYS[3])
end

local function drop(key, gone)
  local sums = {c = 't', s = 'S', h = 'H', p = 'P'}
  for field, sum in pairs(sums) do
    local had = redis.call('HGET', key, field .. ':' .. gone)
    if had then
      redis.call('HSET', key, sum, write(sub(read(redis.call('HGET', key, sum)), read(had))))
      redis.call('HDEL', key, field .. ':' .. gone)
    end
  end
  redis.call('HDEL', key, 'v:' .. gone)
end

if verb == 'lay' then
  local key = KEYS[3]
  enter(key, ARGV[6])
  if (redis.call('HGET', key, 'g') or '0') ~= ARGV[7] then return {'raced'} end
  redis.call('HINCRBY', key, 'g', 1)
  redis.call('HSET', key, 'b', ARGV[8])
  local at, many = 10, tonumber(ARGV[9])
  for i = 1, many do
    redis.call('HSET', key, 'n:' .. ARGV[at], ARGV[at + 1])
    at = at + 2
  end
  -- What a worker has set since the look is not in what was read.
  for i = at, #ARGV, 2 do
    if (redis.call('HGET', key, 'v:' .. ARGV[i]) or '0') == ARGV[i + 1] then drop(key, ARGV[i]) end
  end
  return {'ok'}
end

local function sum_base(text)
  local spent, parked = ZERO, ZERO
  for till, amount, unknown in string.gmatch(text or '', '(%d+):(%-?%d+):(%-?%d+)') do
    if till == '0' or tonumber(till) > now then
      spent, parked = add(spent, read(amount)), add(parked, read(unknown))
    end
  end
  return spent, parked
end

-- Windows that begin after everybody has joined have nothing in the ledger: no need to look.
local function lay_empty(key)
  redis.call('HSET', key, 'g', 1, 'b', '')
  local fields = redis.call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 2) == 'w:' then
      redis.call('HSET', key, 'n:' .. string.sub(fields[i], 3), fields[i + 1])
    end
  end
end

-- Whether all that answer have said what they have of a window that began before they agreed.
local function is_told_by_all(key)
  for _, name in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
    if redis.call('HEXISTS', key, 'c:' .. name) == 0 then return false end
  end
  return true
end

-- A window beside one: what its base and the claims on it come to, those of others apart.
local function beside(place, is_new)
  if place == '0' then return nil end
  local key = KEYS[tonumber(place)]
  local got = redis.call('HMGET', key, 'e', 'g', 'b', 't', 'c:' .. worker)
  if got[1] ~= epoch then return {is_there = false, is_known = is_new == '1', base = ZERO, claims = ZERO, others = ZERO} end
  local claims = read(got[4])
  return {
    key = key, is_there = true, is_known = is_new == '1' or got[2], base = (sum_base(got[3])),
    claims = claims, others = sub(claims, read(got[5])),
  }
end

-- How far a window may be filled, how far if others gave back whatever they have of its
-- neighbours, what of it is taken over, and whether they have anything there.
local function bounds(state)
  local at = state.at
  local own, carried, best = read(ARGV[at + 4]), ZERO, ZERO
  local are_others = false
  local before = beside(ARGV[at + 11], ARGV[at + 13])
  if before and before.is_known and (ARGV[at + 13] == '1' or is_told_by_all(before.key)) then
    local cap, left = read(ARGV[at + 10]), sub(read(ARGV[at + 12]), before.base)
    carried, best = sub(left, before.claims), left
    if less(cap, carried) then carried = cap end
    if less(cap, best) then best = cap end
    if less(carried, ZERO) then carried = ZERO end
    if less(best, ZERO) then best = ZERO end
    are_others = less(ZERO, before.others)
  end
  local most = add(own, carried)
  best = add(own, best)
  local after = beside(ARGV[at + 14], ARGV[at + 16])
  if after and after.is_there then
    local used = sub(after.base, read(ARGV[at + 15]))
    local least = sub(own, used)
    if less(ZERO, used) and less(least, best) then best = least end
    used = add(used, after.claims)
    least = sub(own, used)
    if less(ZERO, used) and less(least, most) then most = least end
    -- Nobody knows what the next one has used: nothing more for this one.
    if not after.is_known then most = add(state.base, state.claims) end
    are_others = are_others or less(ZERO, after.others)
  end
  return most, best, carried, are_others
end

local alive = redis.call('ZCARD', KEYS[2])
local states = {}
for i = 3, 2 + tonumber(ARGV[6]) do
  local key, at = KEYS[i], 7 + (i - 3) * BLOCK
  local from, is_new, expires_ms, seen = ARGV[at], ARGV[at + 1], ARGV[at + 2], tonumber(ARGV[at + 3])
  enter(key, expires_ms)
  if is_new == '1' and known[3] == '1' and redis.call('HEXISTS', key, 'g') == 0 then lay_empty(key) end
  local got = redis.call('HMGET', key, 'g', 'b', 't', 'n:' .. worker, 'c:' .. worker,
    'v:' .. worker, 'S', 'H', 'P', 's:' .. worker, 'h:' .. worker, 'p:' .. worker)
  local version = tonumber(got[6] or '0')
  -- What was agreed is gone: the server has an older state than one it has answered from.
  if version < seen then
    redis.call('DEL', KEYS[1])
    return {'lost'}
  end
  if version > tonumber(number) then return {'stale', got[6]} end
  local base, parked = sum_base(got[2])
  states[#states + 1] = {
    key = key, at = at, base = base, base_parked = parked, claims = read(got[3]),
    claim = read(got[5]), is_done = version == tonumber(number),
    is_laid = got[1] and (got[4] or '0') == from,
    sums = {S = read(got[7]), H = read(got[8]), P = read(got[9])},
    told = {S = read(got[10]), H = read(got[11]), P = read(got[12])},
  }
end

local function put(state, claim)
  local key, at = state.key, state.at
  state.claims = add(sub(state.claims, state.claim), claim)
  state.claim = claim
  redis.call('HSET', key, 't', write(state.claims), 'c:' .. worker, write(claim),
    'v:' .. worker, number)
  local fields = {{'S', 's:', 7}, {'H', 'h:', 8}, {'P', 'p:', 9}}
  for _, field in ipairs(fields) do
    local sum, mine, text = field[1], field[2], ARGV[at + field[3]]
    local amount = read(text)
    state.sums[sum] = add(sub(state.sums[sum], state.told[sum]), amount)
    state.told[sum] = amount
    redis.call('HSET', key, sum, write(state.sums[sum]), mine .. worker, text)
  end
end

local function tell(out, state)
  out[#out + 1] = state.is_laid and '1' or '0'
  out[#out + 1] = write(state.claim)
  out[#out + 1] = write(add(state.base, sub(state.sums.S, state.told.S)))
  out[#out + 1] = write(sub(state.sums.H, state.told.H))
  out[#out + 1] = write(add(state.base_parked, sub(state.sums.P, state.told.P)))
  -- The largest claim this worker could have.
  local most, best, carried = bounds(state)
  local others = sub(state.claims, state.claim)
  if state.is_hopeless then most, others = best, ZERO end
  out[#out + 1] = write(sub(most, add(state.base, others)))
  out[#out + 1] = write(carried)
end

if verb == 'tell' then
  local out = {'ok', tostring(alive)}
  redis.call('ZADD', KEYS[2], server_s(), worker)
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', server_s() - ALIVE_S)
  for _, state in ipairs(states) do
    if not state.is_done then
      local claim = read(ARGV[state.at + 5])
      -- What it did before it started again is in no base yet: its old claim stands for that.
      if not state.is_laid and less(claim, state.claim) then claim = state.claim end
      put(state, claim)
    end
  end
  for _, state in ipairs(states) do tell(out, state) end
  return out
end

-- take: all or nothing
local failed, recalls = nil, {}
for i, state in ipairs(states) do
  if not state.is_laid then return {'unlaid', tostring(i)} end
  local wanted = read(ARGV[state.at + 5])
  local limit, best, _, are_others = bounds(state)
  local others = sub(state.claims, state.claim)
  state.left = sub(sub(limit, add(state.base, others)), wanted)
  if not state.is_done and less(state.left, ZERO) then
    failed = failed or i
    -- Only where all others giving back all they have could help is anybody asked to.
    state.is_hopeless = less(best, add(state.base, wanted))
    state.is_sure = state.is_hopeless or not (are_others or less(ZERO, others))
    if state.is_sure then recalls = nil end
    if recalls then recalls[#recalls + 1] = state.key end
  end
end
local out
if failed then
  local peers = 0
  local channel = ARGV[7 + #states * BLOCK]
  if recalls and channel and alive > 1 then
    peers = alive - 1
    for _, key in ipairs(recalls) do redis.call('PUBLISH', channel, 'R|' .. worker .. '|' .. key) end
  end
  out = {'short', tostring(failed), tostring(peers), states[failed].is_sure and '1' or '0'}
else
  out = {'ok', tostring(alive)}
  for _, state in ipairs(states) do
    if not state.is_done then
      local wanted, most = read(ARGV[state.at + 5]), read(ARGV[state.at + 6])
      local slack = share(state.left, 4 * math.max(alive, 1))
      local claim = add(wanted, slack)
      if less(most, claim) then claim = most end
      if less(claim, wanted) then claim = wanted end
      put(state, claim)
    end
  end
end
for _, state in ipairs(states) do tell(out, state) end
return out
