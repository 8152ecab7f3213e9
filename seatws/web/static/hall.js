/**
 * The hall: which seats there are, where each stands, and which is next to which. Knows no page.
 *
 * Lengths are in seats: one seat and the gap beside it are 1. Rows are arcs around one point far
 * behind the screen, so that every seat faces it; two aisles part each row into three blocks.
 */

/** From the screen to the back. The guide's seats, A1 to E10, are all there. */
const ROWS = [
  ["A", [2, 6, 2]],
  ["B", [2, 6, 2]],
  ["C", [3, 6, 3]],
  ["D", [3, 6, 3]],
  ["E", [3, 6, 3]],
  ["F", [3, 6, 3]],
  ["G", [3, 6, 3]],
  ["H", [3, 6, 3]],
];
const AISLE = 0.8;
const ROW_PITCH = 1.14;
/** Between the rows E and F, to walk through. */
const CROSS_AISLE = 0.5;
const FIRST_RADIUS = 19;

/**
 * @typedef {object} Place
 * @property {number} x left to right, 0 to 100, as a percentage of the hall's width; the middle of the seat
 * @property {number} y front to back, 0 to 100, of its height
 * @property {number} turn degrees, clockwise
 * @typedef {Place & {id: string, row: string, number: number}} HallSeat
 * @typedef {{name: string, seats: HallSeat[], aisles: Place[]}} Row
 */

/** Where along its row's arc each seat and each aisle stands; 0 is the middle of the hall. */
function along(blocks) {
  const seats = [];
  const aisles = [];
  const length = blocks.reduce((sum, block) => sum + block, 0) + AISLE * (blocks.length - 1);
  let at = -length / 2;
  blocks.forEach((block, index) => {
    for (let seat = 0; seat < block; seat += 1) seats.push(at + seat + 0.5);
    at += block;
    if (index < blocks.length - 1) aisles.push(at + AISLE / 2);
    at += AISLE;
  });
  return { seats, aisles };
}

function build() {
  const rows = ROWS.map(([name, blocks], index) => {
    const radius = FIRST_RADIUS + index * ROW_PITCH + (index > 4 ? CROSS_AISLE : 0);
    const place = (at) => {
      const angle = at / radius;
      return { x: radius * Math.sin(angle), y: radius * Math.cos(angle), turn: (-angle * 180) / Math.PI };
    };
    const { seats, aisles } = along(blocks);
    return {
      name,
      seats: seats.map((at, seat) => ({ id: `${name}${seat + 1}`, row: name, number: seat + 1, ...place(at) })),
      aisles: aisles.map(place),
    };
  });
  const all = rows.flatMap((row) => row.seats);
  const [xs, ys] = [all.map(({ x }) => x), all.map(({ y }) => y)];
  const [left, top] = [Math.min(...xs) - 0.5, Math.min(...ys) - 0.5];
  const [width, height] = [Math.max(...xs) + 0.5 - left, Math.max(...ys) + 0.5 - top];
  for (const each of rows.flatMap((row) => [...row.seats, ...row.aisles])) {
    each.x = (100 * (each.x - left)) / width;
    each.y = (100 * (each.y - top)) / height;
  }
  return { rows, width, height };
}

/** @type {{rows: Row[], width: number, height: number}} `width` and `height` in seats */
export const HALL = build();

const ALL = HALL.rows.flatMap((row) => row.seats);
const BY_ID = new Map(ALL.map((seat) => [seat.id, seat]));

/** How many seats there are. */
export const SEAT_COUNT = ALL.length;

/** @returns {HallSeat | undefined} undefined for a seat of some other hall */
export const hallSeat = (id) => BY_ID.get(id);

const closest = (row, x) =>
  row.seats.reduce((best, seat) => (Math.abs(seat.x - x) < Math.abs(best.x - x) ? seat : best));

/**
 * The seat that a key leads to, as a grid of the ARIA Authoring Practices has it.
 *
 * @param {string} id
 * @param {{key: string, ctrlKey: boolean}} event
 * @returns {?string} null at the edge and for other keys
 */
export function seatByKey(id, { key, ctrlKey }) {
  const here = BY_ID.get(id);
  const index = HALL.rows.findIndex((row) => row.name === here.row);
  const { seats } = HALL.rows[index];
  const vertical = (step) => {
    const row = HALL.rows[index + step];
    return row && closest(row, here.x);
  };
  const found = {
    ArrowLeft: () => seats[here.number - 2],
    ArrowRight: () => seats[here.number],
    ArrowUp: () => vertical(-1),
    ArrowDown: () => vertical(1),
    Home: () => (ctrlKey ? ALL[0] : seats[0]),
    End: () => (ctrlKey ? ALL.at(-1) : seats.at(-1)),
  }[key]?.();
  return found?.id ?? null;
}

/**
 * The best free seats side by side: near the middle, somewhat behind it, no aisle in between.
 *
 * @param {number} count
 * @param {(id: string) => boolean} isFree
 * @returns {string[]} empty if there are none
 */
export function bestTogether(count, isFree) {
  let best = { badness: Infinity, seats: [] };
  const pitch = 100 / HALL.width;
  for (const { seats } of HALL.rows) {
    for (let from = 0; from + count <= seats.length; from += 1) {
      const some = seats.slice(from, from + count);
      const isApart = some.at(-1).x - some[0].x > pitch * (count - 1) * 1.05;
      if (isApart || !some.every((seat) => isFree(seat.id))) continue;
      const badness = some.reduce((sum, { x, y }) => sum + Math.hypot(x - 50, y - 62), 0);
      if (badness < best.badness - 1e-9) best = { badness, seats: some };
    }
  }
  return best.seats.map((seat) => seat.id);
}
