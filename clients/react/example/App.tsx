import { useState } from "react";
import { SeatMap } from "@seatws/react";
import type { Hall, Seat } from "@seatws/react";

/** Six rows with an aisle in the middle; `null` is where nobody sits. */
const HALL: Hall = ["A", "B", "C", "D", "E", "F"].map((row) =>
  [1, 2, 3, 4, 5, null, 6, 7, 8, 9, 10].map((column) => (column === null ? null : `${row}${column}`)),
);
const SOLD = ["C5", "C6", "D5"];
const SHOWINGS = ["funcion_123", "funcion_124"];
const asked = new URLSearchParams(location.search);

export function App() {
  const [showing, setShowing] = useState(asked.get("room") ?? SHOWINGS[0]!);
  const [name, setName] = useState("Ana");
  const [mine, setMine] = useState<readonly Seat[]>([]);
  return (
    <>
      <h1>Elige tus asientos</h1>
      <p>
        <label>
          Función{" "}
          <select value={showing} onChange={(event) => setShowing(event.target.value)}>
            {[...new Set([showing, ...SHOWINGS])].map((id) => (
              <option key={id}>{id}</option>
            ))}
          </select>
        </label>
      </p>
      <p>
        <label>
          Tu nombre <input value={name} onChange={(event) => setName(event.target.value)} />
        </label>
      </p>
      <h2>Sala</h2>
      <SeatMap
        roomId={showing}
        url={asked.get("server") ?? "ws://localhost:8001"}
        userInfo={{ name }}
        hall={HALL}
        unavailable={SOLD}
        onSelectionChange={setMine}
      />
      <p>
        <button disabled={mine.length === 0}>Pagar {mine.length || ""}</button>
      </p>
    </>
  );
}
