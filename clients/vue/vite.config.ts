import vue from "@vitejs/plugin-vue";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [vue()],
  publicDir: "../css", // into dist/ as it is
  build: {
    lib: { entry: "src/index.ts", formats: ["es"], fileName: "seatws-vue" },
    rollupOptions: { external: ["vue", "@seatws/client"] },
    sourcemap: true,
  },
  test: {
    environment: "jsdom",
    include: ["test/**/*.test.ts"],
    setupFiles: "test/setup.ts",
    server: { deps: { external: [/js\/test\//] } }, // Vite would take their file names for the addresses of assets
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
