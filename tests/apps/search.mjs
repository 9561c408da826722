// A site's own application: embeds and reranks texts with Transformers.js, without a network.
// Prints JSON: the similarity of the question to each document, and the rerankers' scores.
import { join } from "node:path";
import {
  AutoModelForSequenceClassification, AutoTokenizer, env, pipeline,
} from "@huggingface/transformers";

const { HF_EMBEDDING_MODEL_ID, HF_RERANKER_MODEL_ID, APP_CACHE_DIR, HF_HOME } = process.env;
const [question, ...documents] = process.argv.slice(2);

// An explicit directory, then HF_HOME, then the project's own: Transformers.js reads no variable.
env.cacheDir = APP_CACHE_DIR ?? (HF_HOME ? join(HF_HOME, "transformers") : "./.cache");
env.allowRemoteModels = process.env.HF_ALLOW_REMOTE_MODELS !== "false";
const options = { dtype: "q8", local_files_only: !env.allowRemoteModels };

const embed = await pipeline("feature-extraction", HF_EMBEDDING_MODEL_ID, options);
const vectors = await embed([question, ...documents], { pooling: "mean", normalize: true });
const [asked, ...found] = vectors.tolist();
const product = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);

const tokenizer = await AutoTokenizer.from_pretrained(HF_RERANKER_MODEL_ID, options);
const model = await AutoModelForSequenceClassification.from_pretrained(
  HF_RERANKER_MODEL_ID, options,
);
const pairs = tokenizer(documents.map(() => question), {
  text_pair: documents, padding: true, truncation: true,
});
const { logits } = await model(pairs);

console.log(JSON.stringify({
  similarities: found.map((vector) => product(asked, vector)),
  scores: logits.tolist().map(([score]) => score),
}));
