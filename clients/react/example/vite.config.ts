import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  plugins: [react()],
  // The sources, so that nothing has to be built; in an application of your own: npm install, no alias.
  resolve: {
    alias: {
      "@seatws/react/seatmap.css": here("../../css/seatmap.css"),
      "@seatws/react": here("../src/index.ts"),
    },
  },
  server: { fs: { allow: [here("../..")] } },
});
