import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import "@seatws/react/seatmap.css";
import { App } from "./App.js";

createRoot(document.getElementById("app")!).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
