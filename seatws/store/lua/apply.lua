-- apply: the only way to change a hold. One call, one room, one atomic step.
--
-- First ends every hold whose deadline has passed, so that what follows meets live holds alone;
-- then applies the operations in order, each by the rules; then stores, then publishes what
-- changed in one message. Called with no operation it only ends what is due.
--
-- All is read, then decided in memory, then written, each key's removals last: while a cluster
-- moves the room's slot, a call on a key that is not there is an error, and in the middle of a
-- script it would leave half of what was decided.
--
-- KEYS[1]  holds      hash  seat -> record               seatws:{room}:holds
-- KEYS[2]  deadlines  zset  seat by deadline, Unix ms    seatws:{room}:deadlines
-- KEYS[3]  owners     hash  client -> number of seats    seatws:{room}:owners
-- KEYS[4]  meta       hash  epoch, rev                   seatws:{room}:meta
--
-- ARGV[1]  publish    PUBLISH, or SPUBLISH in a cluster
-- ARGV[2]  channel    pub/sub channel of the room        seatws:{room}:events
-- ARGV[3]  origin     who calls, 8 characters; stands before each published event
-- ARGV[4]  hold_ms    how long a new hold lasts
-- ARGV[5]  max_seats  seats a client may hold in the room; 0: any number
-- ARGV[6]  keep_ms    how long the keys outlive the last deadline
-- ARGV[7]  fresh      the epoch to begin if the room has none; never used before
-- ARGV[8]  ...        operations, one behind the other:
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

local holds, deadlines, owners, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local publish, channel, origin, fresh = ARGV[1], ARGV[2], ARGV[3], ARGV[7]
local hold_ms, max_seats, keep_ms = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local FIRST_OPERATION = 8
local AT_ONCE = 1000 -- words in one call: Lua unpacks no more than some thousands

local call = redis.call
local time = call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

local known = call('HMGET', meta, 'epoch', 'rev')
local epoch, rev = known[1] or fresh, tonumber(known[2] or 0)
local changes, repeated = {}, false

-- What is read is kept, and changed in memory: a record, or false for a free seat; a client's
-- number of seats. `was` and `had` have what Redis has, of all that changes.
local records, was, numbers, had = {}, {}, {}, {}
local touched = {} -- the seats of `was`, in order

local function record_of(seat)
    if records[seat] == nil then
        records[seat] = call('HGET', holds, seat)
    end
    return records[seat]
end

local function number_of(client)
    if not numbers[client] then
        numbers[client] = tonumber(call('HGET', owners, client) or 0)
    end
    return numbers[client]
end

local function set(seat, record, client, more)
    if was[seat] == nil then
        was[seat] = record_of(seat)
        touched[#touched + 1] = seat
    end
    records[seat] = record
    had[client] = had[client] or number_of(client)
    numbers[client] = number_of(client) + more
    rev = rev + 1
end

local function owner_and_deadline(record)
    local deadline, client = string.match(record, '^(%d+) %d+ (%S+) ')
    return client, tonumber(deadline)
end

local function finish(kind, seat, client)
    set(seat, false, client, -1)
    changes[#changes + 1] = {rev, kind, seat, client}
end

local function select(client, user_info, seats)
    local taken, answer, free = {}, {}, 0
    for i, seat in ipairs(seats) do
        local record = record_of(seat)
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
        repeated = true
        return {'ok', answer}
    end
    if max_seats > 0 and number_of(client) + free > max_seats then
        return {'limit'}
    end
    for _, seat in ipairs(answer) do
        if seat[2] == -1 then
            local deadline = seat[3]
            local record = string.format('%d %d %s %s', deadline, now_ms, client, user_info)
            set(seat[1], record, client, 1)
            seat[2] = rev
            changes[#changes + 1] = {rev, 'selected', seat[1], client, now_ms, deadline, user_info}
        end
    end
    return {'ok', answer}
end

local function release(client, seat)
    local record = record_of(seat)
    if not record or owner_and_deadline(record) ~= client then
        return {'not_holder'}
    end
    finish('released', seat, client)
    return {'ok', {{seat, rev, 0}}}
end

for _, seat in ipairs(call('ZRANGEBYSCORE', deadlines, '-inf', now_ms)) do
    finish('expired', seat, (owner_and_deadline(record_of(seat))))
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

local function write(command, key, words)
    if #words <= AT_ONCE then
        return #words > 0 and call(command, key, unpack(words))
    end
    for first = 1, #words, AT_ONCE do
        call(command, key, unpack(words, first, math.min(first + AT_ONCE - 1, #words)))
    end
end

local event = ''
if #changes > 0 then
    local kept, kept_until, ended = {}, {}, {}
    for _, seat in ipairs(touched) do
        local record = records[seat]
        if record then
            local _, deadline = owner_and_deadline(record)
            kept[#kept + 1], kept[#kept + 2] = seat, record
            kept_until[#kept_until + 1], kept_until[#kept_until + 2] = deadline, seat
        elseif was[seat] then
            ended[#ended + 1] = seat
        end
    end
    local counted, left = {}, {}
    for client, before in pairs(had) do
        if numbers[client] > 0 then
            counted[#counted + 1], counted[#counted + 2] = client, numbers[client]
        elseif before > 0 then
            left[#left + 1] = client
        end
    end

    if #kept == 0 then
        -- Nothing to keep: then removals come first, which a Redis without memory does, too.
        write('HDEL', holds, ended)
        write('ZREM', deadlines, ended)
        ended = {}
    end
    call('HSET', meta, 'epoch', epoch, 'rev', rev)
    write('HSET', holds, kept)
    write('ZADD', deadlines, kept_until)
    write('HSET', owners, counted)
    if #kept > 0 then
        -- All keys end at the same moment, so that no half of a room is ever left behind.
        local last = call('ZREVRANGE', deadlines, 0, 0, 'WITHSCORES')[2]
        local gone_at = string.format('%d', tonumber(last) + keep_ms)
        for _, key in ipairs({holds, deadlines, owners, meta}) do
            call('PEXPIREAT', key, gone_at)
        end
    elseif not known[1] then
        -- The room's first holds were released again in this very call.
        call('PEXPIREAT', meta, string.format('%d', now_ms + hold_ms + keep_ms))
    end
    write('HDEL', holds, ended)
    write('ZREM', deadlines, ended)
    write('HDEL', owners, left)
    event = cmsgpack.pack({epoch, changes})
    call(publish, channel, origin .. event)
elseif repeated then
    -- So that who waits for replicas (WAIT) waits for the hold, too, that another connection made.
    call('HSET', meta, 'rev', rev)
end
return {event, cmsgpack.pack(outcomes), now_ms}
