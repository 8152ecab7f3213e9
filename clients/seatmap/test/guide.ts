/** The code of the guide, word for word, for the tests: it must work with this server. */
import { readFileSync } from "node:fs";
import { join } from "node:path";

/** Tests run in clients/react or clients/vue. */
const GUIDE = join(process.cwd(), "../../tests/data/guia-websocket.md");

/** The first block of that language below the heading. */
function block(heading: string, language: string): string {
  const below = readFileSync(GUIDE, "utf8").split(`### ${heading}\n`)[1];
  const code = below?.split("```" + language + "\n")[1]?.split("\n```")[0];
  if (!code) throw new Error(`the guide has no ${language} under ${heading}`);
  return code;
}

export const guideClient = () => block("Cliente JavaScript Básico", "javascript");
export const guideReact = () => block("Ejemplo de Uso en React", "jsx");
export const guideVue = () => block("Ejemplo de Uso en Vue.js", "vue");

/** The guide's own class. */
export function GuideClient(): new () => { clientId: string; ws: WebSocket } {
  return new Function(`${guideClient()}; return SeatSelectionClient;`)();
}

/** Send what goes to the guide's `localhost:8001` to another port. @returns undoes it */
export function redirect(port: number): () => void {
  const Real = globalThis.WebSocket;
  globalThis.WebSocket = class extends Real {
    constructor(url: string | URL, protocols?: string | string[]) {
      super(String(url).replace("//localhost:8001/", `//127.0.0.1:${port}/`), protocols);
    }
  };
  return () => void (globalThis.WebSocket = Real);
}
