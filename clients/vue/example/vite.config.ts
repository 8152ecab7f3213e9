import { fileURLToPath } from "node:url";
import vue from "@vitejs/plugin-vue";
import { defineConfig } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  plugins: [vue()],
  // The sources, so that nothing has to be built; in an application of your own: npm install, no alias.
  resolve: {
    alias: {
      "@seatws/vue/seatmap.css": here("../../css/seatmap.css"),
      "@seatws/vue": here("../src/index.ts"),
    },
  },
  server: { fs: { allow: [here("../..")] } },
});
