-- snapshot: everything that a room's mirror needs, as of one moment.
--
-- A script because the holds and the rev must be of the same moment: read apart,
-- a change between the two would be lost or counted twice.
--
-- KEYS[1]  holds      hash  seat -> record               seatws:{room}:holds
-- KEYS[2]  meta       hash  epoch, rev                   seatws:{room}:meta
--
-- Returns {epoch, rev, now_ms, {seat, record, seat, record, ...}}
--   epoch    "" if the room has no data
--   now_ms   Redis TIME, Unix milliseconds
--   records  as apply.lua writes them, those past their deadline too: ending a hold takes a rev,
--            and this is the room as of `rev`
-- Called from seatws/store/holds.py: HoldStore.snapshot

local holds, meta = KEYS[1], KEYS[2]

local time = redis.call('TIME')
local known = redis.call('HMGET', meta, 'epoch', 'rev')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
return {known[1] or '', tonumber(known[2] or 0), now_ms, redis.call('HGETALL', holds)}
