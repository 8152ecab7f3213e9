/** The plan of a hall, and moving through it by keyboard. */

/** Rows from the screen backwards; each from left to right, `null` where there is no seat (an aisle). */
export type Hall = readonly (readonly (string | null)[])[];

/** A plain block of seats: "A1" to "J15" for 10 rows of 15. */
export function gridHall(rows = 10, columns = 15): Hall {
  return Array.from({ length: rows }, (_, row) =>
    Array.from({ length: columns }, (_, column) => `${letters(row)}${column + 1}`),
  );
}

/** 0 → A, 25 → Z, 26 → AA. */
function letters(row: number): string {
  const last = String.fromCharCode(65 + (row % 26));
  return row < 26 ? last : letters(Math.floor(row / 26) - 1) + last;
}

/** Columns of the widest row. */
export function widthOf(hall: Hall): number {
  return Math.max(1, ...hall.map((row) => row.length));
}

export function firstSeat(hall: Hall): string | null {
  return hall.flat().find((id) => id !== null) ?? null;
}

/** Where a key leads from a seat: another seat, the same at the edge, or null for a key that moves nothing. */
export function moveFocus(hall: Hall, from: string, key: string, ctrl: boolean): string | null {
  const row = hall.findIndex((seats) => seats.includes(from));
  const column = hall[row]?.indexOf(from) ?? -1;
  if (row < 0) return null;
  const last = hall.length - 1;
  switch (key) {
    case "ArrowRight":
      return along(hall[row]!.slice(column + 1)) ?? from;
    case "ArrowLeft":
      return along(hall[row]!.slice(0, column).reverse()) ?? from;
    case "ArrowDown":
      return down(hall, row + 1, 1, column) ?? from;
    case "ArrowUp":
      return down(hall, row - 1, -1, column) ?? from;
    case "PageDown":
      return down(hall, last, -1, column) ?? from;
    case "PageUp":
      return down(hall, 0, 1, column) ?? from;
    case "Home":
      return along(ctrl ? hall.flat() : hall[row]!) ?? from;
    case "End":
      return along((ctrl ? hall.flat() : [...hall[row]!]).reverse()) ?? from;
    default:
      return null;
  }
}

function along(seats: readonly (string | null)[]): string | null {
  return seats.find((id) => id !== null) ?? null;
}

/** The seat of the next row that has any, nearest to the column. */
function down(hall: Hall, row: number, step: 1 | -1, column: number): string | null {
  for (let at = row; at >= 0 && at < hall.length; at += step) {
    const near = hall[at]!
      .map((id, index) => ({ id, distance: Math.abs(index - column) }))
      .filter((each) => each.id !== null)
      .sort((a, b) => a.distance - b.distance)[0];
    if (near) return near.id;
  }
  return null;
}
