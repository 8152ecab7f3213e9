-- inspect: all that a room has in Redis, as of one moment. It only reads (EVAL_RO).
--
-- A script because holds, deadlines, owners and rev have to agree at each moment:
-- read apart, a change between two of them would look like damage.
--
-- KEYS[1]  holds      hash  seat -> record               seatws:{room}:holds
-- KEYS[2]  deadlines  zset  seat by deadline, Unix ms    seatws:{room}:deadlines
-- KEYS[3]  owners     hash  client -> number of seats    seatws:{room}:owners
-- KEYS[4]  meta       hash  epoch, rev                   seatws:{room}:meta
--
-- Returns {now_ms, types, ttls, holds, deadlines, owners, meta}
--   now_ms     Redis TIME, Unix milliseconds
--   types      of the four keys in this order: hash, zset, ..., or none
--   ttls       of the same, milliseconds; -1: it never goes, -2: it is not there
--   holds ...  what is in them, {field, value, ...} and {seat, deadline, ...}; empty where the
--              key is of another type
-- Called from seatws/doctor/room.py: RoomReader.read

local holds, deadlines, owners, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4]

local time = redis.call('TIME')
local types, ttls = {}, {}
for i, key in ipairs({holds, deadlines, owners, meta}) do
    types[i] = redis.call('TYPE', key).ok
    ttls[i] = redis.call('PTTL', key)
end

local function fields(at, key)
    if types[at] ~= 'hash' then
        return {}
    end
    return redis.call('HGETALL', key)
end

local seats = {}
if types[2] == 'zset' then
    seats = redis.call('ZRANGE', deadlines, 0, -1, 'WITHSCORES')
end
return {
    time[1] * 1000 + math.floor(time[2] / 1000), types, ttls,
    fields(1, holds), seats, fields(3, owners), fields(4, meta),
}
