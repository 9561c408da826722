// Answers questions about an uploaded document: docling cuts it into chunks, llama.cpp embeds them,
// Chroma keeps them, and a small model answers from the chunk that is nearest to the question.
import { createServer } from "node:http";

const { DOCLING_URL, EMBEDDINGS_URL, LLAMACPP_URL, CHROMA_URL } = process.env;
const DOCLING = `${DOCLING_URL}/v1/chunk/hybrid/source`;
const EMBEDDINGS = `${EMBEDDINGS_URL}/v1/embeddings`;
const CHAT = `${LLAMACPP_URL}/v1/chat/completions`;
const CHROMA = `${CHROMA_URL}/api/v2/tenants/default_tenant/databases/default_database/collections`;

class Failure extends Error {}

async function call(method, url, body) {
  const response = await fetch(url, {
    method,
    headers: { "Content-Type": "application/json" },
    body: body && JSON.stringify(body),
  });
  const text = await response.text();
  if (!response.ok) throw new Failure(`${url} answers with ${response.status}: ${text}`);
  return text ? JSON.parse(text) : null;
}

async function embed(texts) {
  const found = await call("POST", EMBEDDINGS, { model: "embedding", input: texts });
  return found.data.map((each) => each.embedding);
}

async function collection() {
  return call("POST", CHROMA, { name: "documents", get_or_create: true });
}

// Replaces the document. `upload` has a file's name and its bytes in Base64.
async function store(upload) {
  const { chunks } = await call("POST", DOCLING, {
    sources: [{ kind: "file", filename: upload.filename, base64_string: upload.base64 }],
  });
  const texts = chunks.map((chunk) => chunk.text);
  if (!texts.length) throw new Failure("docling found no text in the document");
  await collection();
  await call("DELETE", `${CHROMA}/documents`);
  const { id } = await collection();
  await call("POST", `${CHROMA}/${id}/add`, {
    ids: texts.map((_, index) => `${upload.filename}-${index}`),
    documents: texts,
    embeddings: await embed(texts),
  });
  return { chunks: texts.length };
}

async function answer({ question }) {
  const { id } = await collection();
  const found = await call("POST", `${CHROMA}/${id}/query`, {
    query_embeddings: await embed([question]),
    n_results: 3,
  });
  const [chunks] = found.documents;
  if (!chunks.length) throw new Failure("no document is stored");
  const content =
    "Use the context to answer the question.\n\n" +
    `Context: ${chunks[0]}\n\nQuestion: ${question}\nAnswer:`;
  const said = await call("POST", CHAT, {
    model: "text",
    max_tokens: 64,
    messages: [{ role: "user", content }],
  });
  return { chunks, answer: said.choices[0].message.content };
}

async function read(request) {
  const parts = [];
  for await (const part of request) parts.push(part);
  return JSON.parse(Buffer.concat(parts).toString());
}

const ROUTES = {
  "GET /health": async () => ({ status: "ok" }),
  "POST /documents": async (request) => store(await read(request)),
  "POST /ask": async (request) => answer(await read(request)),
};

async function handle(request) {
  const route = ROUTES[`${request.method} ${request.url}`];
  if (!route) return [404, { error: "there is no such route" }];
  try {
    return [200, await route(request)];
  } catch (error) {
    console.error(error);
    return [502, { error: error.message }];
  }
}

const server = createServer(async (request, response) => {
  const [status, body] = await handle(request);
  response.writeHead(status, { "Content-Type": "application/json" });
  response.end(JSON.stringify(body));
});
process.on("SIGTERM", () => process.exit(0));
server.listen(process.env.PORT ?? 3000);
