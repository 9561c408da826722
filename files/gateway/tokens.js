// managed by llmhost: edit the inventory instead
//
// Finds the model and the numbers of tokens in an engine's answer, for the log and quotas. The answer
// passes unchanged. Each request has its own copy of these variables. In JSON, a quotation mark within a
// text is escaped, so that a text cannot look like a field.

const KEEP = 1024; // bytes: no object `usage` is longer
const FIELDS = /"(usage|timings)"\s*:\s*\{|"(?:prompt_)?eval_count"\s*:/;
const USAGE = /"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})/g;
const TIMINGS = /"timings"\s*:\s*(\{[^{}]*\})/g;
const MODEL = /"model"\s*:\s*"([A-Za-z0-9._:\/@+-]{1,128})"/;
// What a client said, which vLLM repeats before its model.
const METADATA = /"metadata"\s*:\s*\{[^{}]*\}/g;
// What OpenAI's format `responses` repeats of the request before these events could look like figures.
const AT_END = /^response\.(completed|incomplete|failed)$/;
const SPARE = 30; // events: no answer begins and ends with more that are not tokens

let counted; // for a client with a quota, what its route counts; empty for others
let whole; // whether the answer is one JSON object, not a stream
let events = 0;
let bytes = 0;
let choices = 0;
let timed = false;
let event = "";
let tail = "";
let model = "";
let tokens = [-1, -1];

function set(r, input, output) {
    tokens = [Math.max(tokens[0], input), Math.max(tokens[1], output)];
    r.variables.gateway_tokens_in = String(Math.max(0, tokens[0]));
    r.variables.gateway_tokens_out = String(Math.max(0, tokens[1]));
}

function number(value) {
    return typeof value == "number" && value >= 0 ? Math.floor(value) : 0;
}

function objects(text, pattern) {
    const found = [];
    let match;
    pattern.lastIndex = 0;
    while ((match = pattern.exec(text)) !== null) {
        try {
            found.push(JSON.parse(match[1]));
        } catch (e) {
            // not complete yet
        }
    }
    return found;
}

function read(usage) {
    if (usage.prompt_tokens !== undefined) {
        return number(usage.prompt_tokens); // with those of the cache
    }
    if (usage.input_tokens !== undefined) {
        return number(usage.input_tokens) + number(usage.cache_read_input_tokens) +
            number(usage.cache_creation_input_tokens);
    }
    return number(usage.total_tokens); // of a reranker
}

function look(r, text) {
    const usages = objects(text, USAGE);
    usages.forEach(function (usage) {
        set(r, read(usage), number(usage.completion_tokens || usage.output_tokens));
    });
    // llama.cpp reports them in the last event of each stream, without `usage` unless it is requested.
    objects(text, TIMINGS).forEach(function (timings) {
        timed = true;
        set(r, number(timings.prompt_n) + number(timings.cache_n), number(timings.predicted_n));
    });
    // Ollama's own API.
    const input = /"prompt_eval_count"\s*:\s*(\d{1,15})\b/.exec(text);
    const output = /"eval_count"\s*:\s*(\d{1,15})\b/.exec(text);
    if (input || output) {
        set(r, input ? Number(input[1]) : 0, output ? Number(output[1]) : 0);
    }
}

// How often a text occurs; it may begin in the piece before.
function occurrences(chunk, text) {
    const before = tail ? tail.slice(1 - text.length) : "\n";
    return (before + chunk).split(text).length - 1;
}

function estimate(r, data, chunk) {
    if (whole === undefined) {
        whole = /^\s*[[{]/.test(chunk) && !/ndjson/.test(r.headersOut["Content-Type"]);
    }
    bytes += data.length;
    // Server-sent events, and Ollama's lines.
    events += occurrences(chunk, "\ndata:") + occurrences(chunk, "\n{");
    choices += occurrences(chunk, '"finish_reason":"');
    whole = whole && events < 2;
}

// What counts for the quota, if the answer ends here.
function charge(r, last) {
    // A picture is not a long text.
    const asked = Math.min(Math.floor(Number(r.variables.gateway_length) / 4), 32768);
    const input = Math.max(0, tokens[0]);
    const output = Math.max(0, tokens[1]);
    // Of several choices, or of several prompts, llama.cpp reports the tokens of one.
    const partial = timed && choices > 1;
    // A long answer of vectors is not a long text.
    const seen = whole && counted == "text" ? Math.floor(bytes / 4) : events;
    // Figures that are not the last of a stream are less than its events.
    const known = whole ? last && tokens[0] >= 0 : output > 0 && seen <= output * 1.25 + SPARE;
    return (partial ? Math.max(input, asked) : input || asked) +
        (known && !partial ? output : Math.max(output, seen));
}

function look_for_event(chunk) {
    const text = (tail ? tail.slice(-80) : "\n") + chunk;
    const at = text.lastIndexOf("\nevent: ");
    if (at >= 0) {
        event = text.slice(at + 8).split("\n")[0];
    }
}

function pass(r, data) {
    const chunk = data.toString();
    const text = tail + chunk;
    if (counted) {
        estimate(r, data, chunk);
    }
    if (!model) {
        const named = MODEL.exec(text.replace(METADATA, ""));
        if (named) {
            model = named[1];
            r.variables.gateway_model = model;
        }
    }
    look_for_event(chunk);
    const early = event.startsWith("response.") && !AT_END.test(event);
    if (!early && FIELDS.test(text)) {
        look(r, text);
    }
    tail = text.slice(-KEEP);
}

function count(r, data, flags) {
    r.sendBuffer(data, flags);
    if (counted === undefined) {
        counted = r.variables.gateway_token_limit ? r.variables.gateway_counted : "";
    }
    if (data.length) {
        pass(r, data);
    }
    if (counted) {
        r.variables.gateway_charged = String(charge(r, flags.last));
    }
}

export default { count };
