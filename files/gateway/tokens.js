// managed by llmhost: edit the inventory instead
//
// Finds the model and the numbers of tokens in an engine's answer, for the log. The answer passes
// unchanged. Each request has its own copy of these variables. In JSON, a quotation mark within a
// text is escaped, so that a text cannot look like a field.

const KEEP = 1024; // bytes: no object `usage` is longer
const FIELDS = /"(usage|timings)"\s*:\s*\{|"(?:prompt_)?eval_count"\s*:/;
const USAGE = /"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})/g;
const TIMINGS = /"timings"\s*:\s*(\{[^{}]*\})/g;
const MODEL = /"model"\s*:\s*"([A-Za-z0-9._:\/@+-]{1,128})"/;

let limited; // whether its client has a quota: then events are counted, too
let events = 0;
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

function look(r, text) {
    const usages = objects(text, USAGE);
    usages.forEach(function (usage) {
        set(r, number(usage.prompt_tokens || usage.input_tokens),
            number(usage.completion_tokens || usage.output_tokens));
    });
    // llama.cpp reports them in the last event of each stream, without `usage` unless it is requested.
    objects(text, TIMINGS).forEach(function (timings) {
        set(r, number(timings.prompt_n) + number(timings.cache_n), number(timings.predicted_n));
    });
    // Ollama's own API.
    const input = /"prompt_eval_count"\s*:\s*(\d{1,15})\b/.exec(text);
    const output = /"eval_count"\s*:\s*(\d{1,15})\b/.exec(text);
    if (input || output) {
        set(r, input ? Number(input[1]) : 0, output ? Number(output[1]) : 0);
    }
}

function count(r, data, flags) {
    r.sendBuffer(data, flags);
    if (!data.length) {
        return;
    }
    const chunk = data.toString();
    const text = tail + chunk;
    if (limited === undefined) {
        limited = Boolean(r.variables.gateway_token_limit);
    }
    if (limited) {
        // Server-sent events, and Ollama's lines; either may begin in the piece before.
        events += ((tail ? tail.slice(-5) : "\n") + chunk).split("\ndata:").length - 1;
        events += ((tail ? tail.slice(-1) : "\n") + chunk).split("\n{").length - 1;
        r.variables.gateway_events = String(events);
    }
    if (!model) {
        const named = MODEL.exec(text);
        if (named) {
            model = named[1];
            r.variables.gateway_model = model;
        }
    }
    if (FIELDS.test(text)) {
        look(r, text);
    }
    tail = text.slice(-KEEP);
}

export default { count };
