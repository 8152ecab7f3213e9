import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [react()],
  publicDir: "../css", // into dist/ as it is
  build: {
    lib: { entry: "src/index.ts", formats: ["es"], fileName: "seatws-react" },
    rollupOptions: { external: [/^react($|\/)/, /^react-dom($|\/)/, "@seatws/client"] },
    sourcemap: true,
  },
  test: {
    environment: "jsdom",
    include: ["test/**/*.test.{ts,tsx}", "../seatmap/test/**/*.test.ts"],
    setupFiles: "test/setup.ts",
    server: { deps: { external: [/js\/test\//] } }, // Vite would take their file names for the addresses of assets
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
