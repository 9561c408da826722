// managed by llmhost: edit the inventory instead
//
// Who asks, and may they? One verdict a request, taken in nginx's rewrite phase, before a location
// is chosen. nginx.conf lets a request on only if the verdict is exactly "pass", so a fault in here
// (no verdict) closes the door. No key is known here: clients.map holds SHA-256 digests, and a
// digest that is looked up tells nothing of how much of a key was right.

import crypto from 'crypto';

const REFUSALS = {
    key_missing: [401, 'No API key: send it as "Authorization: Bearer KEY".'],
    key_in_address: [401, 'An API key does not belong into the address: send it in a header.'],
    key_unknown: [401, 'Unknown API key.'],
    key_expired: [401, 'This API key has expired.'],
    key_revoked: [401, 'This API key was revoked.'],
    source_denied: [403, 'This API key may not be used from your network.'],
    scope_denied: [403, 'This API key may not call this route.'],
    route_unknown: [404, 'There is no such route.'],
    method_denied: [405, 'This route does not take this method.'],
};

// What nginx itself refuses, by status.
const FAILURES = {
    400: ['request_malformed', 'The request can not be read.'],
    404: ['route_unknown', 'There is no such route.'],
    408: ['request_slow', 'The request did not arrive in time.'],
    413: ['request_too_large', 'The request is too large.'],
    414: ['address_too_long', 'The address is too long.'],
    429: ['too_many_requests', 'Too many requests: slow down.'],
    494: ['headers_too_large', 'The headers are too large.'],
    502: ['engine_silent', 'The engine does not answer.'],
    503: ['engine_busy', 'The engine is not available.'],
    504: ['engine_slow', 'The engine did not answer in time.'],
};

const TYPES = {401: 'authentication_error', 403: 'permission_error', 429: 'rate_limit_error'};
const KEY_IN_ADDRESS = /(^|[&;])(x-)?(api[-_]?key|key|token|access[-_]?token|authorization)=/i;
const TRACE = /^[\w.:-]{1,128}$/;

// "pass", or the status to refuse with.
function verdict(r) {
    const v = r.variables;
    const trace = r.headersIn['X-Request-ID'] || '';
    v.gateway_trace = TRACE.test(trace) ? trace : v.request_id;
    let refusal = refusedKey(r, v);
    if (refusal) {
        // A whole /64 counts as one stranger: that much every IPv6 customer has.
        v.gateway_stranger = r.rawVariables.binary_remote_addr.slice(0, 8).toString('hex');
    } else {
        refusal = refusedRequest(r, v);
    }
    v.gateway_refusal = refusal;
    return refusal ? String(REFUSALS[refusal][0]) : 'pass';
}

function refusedKey(r, v) {
    const key = presentedKey(r);
    if (KEY_IN_ADDRESS.test(v.args || '')) {
        return 'key_in_address';
    }
    if (!key) {
        return 'key_missing';
    }
    v.gateway_key_digest = crypto.createHash('sha256').update(key).digest('hex');
    if (!v.gateway_record) {
        return 'key_unknown';
    }
    const record = v.gateway_record.split('|');
    const until = record[5];
    v.gateway_client = record[0];
    if (until === 'revoked') {
        return 'key_revoked';
    }
    if (until !== '-' && !(Date.now() < Number(until) * 1000)) {
        return 'key_expired';
    }
    v.gateway_rate = record[3];
    v.gateway_streams = record[4];
    return '';
}

function presentedKey(r) {
    const bearer = /^bearer +(\S+) *$/i.exec(r.headersIn['Authorization'] || '');
    return bearer ? bearer[1] : r.headersIn['X-API-Key'] || '';
}

function refusedRequest(r, v) {
    const record = v.gateway_record.split('|');
    if (record[2] !== '-' && v['gateway_source_' + record[2]] !== '1') {
        return 'source_denied';
    }
    if (!v.gateway_route) {
        return 'route_unknown';
    }
    const route = v.gateway_route.split('|');
    v.gateway_path = v.uri;
    if (route[1].split(' ').indexOf(r.method) < 0) {
        v.gateway_allow = route[1].split(' ').join(', ');
        return 'method_denied';
    }
    return admitted(record[1], route[0], route[2]) ? '' : 'scope_denied';
}

function admitted(scope, service, needed) {
    if (scope === 'admin') {
        return true;
    }
    if (needed !== 'inference') {
        return false;
    }
    return scope === 'inference' || scope.split(' ').indexOf(service) >= 0;
}

// The body of every answer that is not an engine's, in the shape OpenAI's clients understand.
function answer(r) {
    const v = r.variables;
    const status = Number(v.status);
    let refusal = REFUSALS[v.gateway_refusal];
    if (!refusal || refusal[0] !== status) {
        refusal = FAILURES[status] || ['failed_' + status, 'The request failed.'];
        v.gateway_refusal = refusal[0];
    }
    if (status === 401) {
        v.gateway_authenticate = 'Bearer';
    } else if (status === 429) {
        v.gateway_retry_after = retryAfter(v);
    }
    const type = TYPES[status] || (status < 500 ? 'invalid_request_error' : 'server_error');
    const error = {message: refusal[1], type: type, param: null, code: v.gateway_refusal};
    return JSON.stringify({error: error}) + '\n';
}

// Seconds until there is a place for the next request; when a stream will end, nobody knows: 1.
function retryAfter(v) {
    const rate = v.gateway_client ? v.gateway_rate : v.gateway_stranger_rate;
    const perMinute = parseInt(rate, 10);
    return String(perMinute ? Math.ceil(60 / perMinute) : 1);
}

export default {verdict, answer};
