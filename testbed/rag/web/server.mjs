// Serves the page.
import { readFileSync } from "node:fs";
import { createServer } from "node:http";

const page = readFileSync(new URL("index.html", import.meta.url));
process.on("SIGTERM", () => process.exit(0));
createServer((request, response) => {
  const found = request.url === "/" || request.url === "/health";
  response.writeHead(found ? 200 : 404, { "Content-Type": "text/html; charset=utf-8" });
  response.end(found ? page : "");
}).listen(3001);
