-- apply: the only way to change a hold. One call, one room, one atomic step.
--
-- First ends every hold whose deadline has passed, so that what follows meets live holds alone;
-- then applies the operations in order, each by the rules; then stores, then publishes what
-- changed in one message. Called with no operation it only ends what is due.
--
-- KEYS[1]  holds      hash  seat -> record               seatws:{room}:holds
-- KEYS[2]  deadlines  zset  seat by deadline, Unix ms    seatws:{room}:deadlines
-- KEYS[3]  owners     hash  client -> number of seats    seatws:{room}:owners
-- KEYS[4]  meta       hash  epoch, rev                   seatws:{room}:meta
-- KEYS[5]  channel    pub/sub channel of the room        seatws:{room}:events
--
-- ARGV[1]  publish    PUBLISH, or SPUBLISH in a cluster
-- ARGV[2]  origin     who calls, 8 characters; stands before each published event
-- ARGV[3]  hold_ms    how long a new hold lasts
-- ARGV[4]  max_seats  seats a client may hold in the room; 0: any number
-- ARGV[5]  keep_ms    how long the keys outlive the last deadline
-- ARGV[6]  fresh      the epoch to begin if the room has none; never used before
-- ARGV[7]  ...        operations, one behind the other:
--                       "select"   client  user_info  n  seat_1 ... seat_n    all of them or none
--                       "release"  client  seat
--
-- A record is "deadline_ms since_ms client user_info"; ids hold no spaces.
--
-- Returns {event, outcomes, now_ms}
--   event     msgpack {epoch, {{rev, kind, seat, client, since_ms, deadline_ms, user_info}, ...}},
--             or "" if nothing changed: what was published, without the origin
--   outcomes  msgpack {{code, {{seat, rev, deadline_ms}, ...}}, ...}, one for each operation:
--             ok (rev 0: held already, unchanged), taken (the seats in the way), limit, not_holder
--   now_ms    Redis TIME, Unix milliseconds
-- Called from seatws/store/holds.py: HoldStore

local holds, deadlines, owners, meta, channel = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local publish, origin, fresh = ARGV[1], ARGV[2], ARGV[6]
local hold_ms, max_seats, keep_ms = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local FIRST_OPERATION = 7

local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local known = redis.call('HMGET', meta, 'epoch', 'rev')
local epoch, rev = known[1] or fresh, tonumber(known[2] or 0)
local changes, new_deadline = {}, false

local function owner_and_deadline(record)
    local deadline, client = string.match(record, '^(%d+) %d+ (%S+) ')
    return client, tonumber(deadline)
end

local function finish(kind, seat, client)
    redis.call('HDEL', holds, seat)
    redis.call('ZREM', deadlines, seat)
    if redis.call('HINCRBY', owners, client, -1) <= 0 then
        redis.call('HDEL', owners, client)
    end
    rev = rev + 1
    changes[#changes + 1] = {rev, kind, seat, client}
end

local function select(client, user_info, seats)
    local taken, answer, free = {}, {}, 0
    for i, seat in ipairs(seats) do
        local record = redis.call('HGET', holds, seat)
        if not record then
            free = free + 1
            answer[i] = {seat, -1, now_ms + hold_ms}
        else
            local owner, deadline = owner_and_deadline(record)
            answer[i] = {seat, 0, deadline}
            if owner ~= client then
                taken[#taken + 1] = answer[i]
            end
        end
    end
    if #taken > 0 then
        return {'taken', taken}
    end
    if free == 0 then
        return {'ok', answer}
    end
    local held = tonumber(redis.call('HGET', owners, client) or 0)
    if max_seats > 0 and held + free > max_seats then
        return {'limit'}
    end
    for _, seat in ipairs(answer) do
        if seat[2] == -1 then
            local deadline = seat[3]
            local record = string.format('%d %d %s %s', deadline, now_ms, client, user_info)
            redis.call('HSET', holds, seat[1], record)
            redis.call('ZADD', deadlines, deadline, seat[1])
            rev = rev + 1
            seat[2] = rev
            changes[#changes + 1] = {rev, 'selected', seat[1], client, now_ms, deadline, user_info}
        end
    end
    redis.call('HINCRBY', owners, client, free)
    new_deadline = true
    return {'ok', answer}
end

local function release(client, seat)
    local record = redis.call('HGET', holds, seat)
    if not record or owner_and_deadline(record) ~= client then
        return {'not_holder'}
    end
    finish('released', seat, client)
    return {'ok', {{seat, rev, 0}}}
end

for _, seat in ipairs(redis.call('ZRANGEBYSCORE', deadlines, '-inf', now_ms)) do
    finish('expired', seat, (owner_and_deadline(redis.call('HGET', holds, seat))))
end

local outcomes, at = {}, FIRST_OPERATION
while ARGV[at] do
    if ARGV[at] == 'select' then
        local count, seats = tonumber(ARGV[at + 3]), {}
        for i = 1, count do
            seats[i] = ARGV[at + 3 + i]
        end
        outcomes[#outcomes + 1] = select(ARGV[at + 1], ARGV[at + 2], seats)
        at = at + 4 + count
    else
        outcomes[#outcomes + 1] = release(ARGV[at + 1], ARGV[at + 2])
        at = at + 3
    end
end

local event = ''
if #changes > 0 then
    redis.call('HSET', meta, 'epoch', epoch, 'rev', rev)
    if new_deadline then
        -- All keys end at the same moment, so that no half of a room is ever left behind.
        -- (Without a last one, the new hold was released again in this very call.)
        local last = redis.call('ZREVRANGE', deadlines, 0, 0, 'WITHSCORES')
        local gone_at = string.format('%d', tonumber(last[2] or now_ms + hold_ms) + keep_ms)
        for _, key in ipairs({holds, deadlines, owners, meta}) do
            redis.call('PEXPIREAT', key, gone_at)
        end
    end
    event = cmsgpack.pack({epoch, changes})
    redis.call(publish, channel, origin .. event)
end
return {event, cmsgpack.pack(outcomes), now_ms}
