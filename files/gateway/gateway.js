// managed by llmhost: edit the inventory instead
//
// Who asks, and may they? One verdict a request, taken in nginx's rewrite phase, before a location
// is chosen. nginx.conf lets a request on only if the verdict is exactly "pass", so a fault in here
// (no verdict) closes the door. No key is known here: clients.map holds SHA-256 digests, and
// whether a digest is known does not depend on how much of a key was right.

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
    400: 'The request can not be read.',
    408: 'The request did not arrive in time.',
    413: 'The request is too large.',
    414: 'The address is too long.',
    429: 'Too many requests: slow down.',
    494: 'The headers are too large.',
    502: 'The engine does not answer.',
    503: 'The engine is not available.',
    504: 'The engine did not answer in time.',
};

const TYPES = {401: 'authentication_error', 403: 'permission_error', 429: 'rate_limit_error'};
const KEY_IN_ADDRESS = /(^|[&;])(x-)?(api[-_]?key|key|token|access[-_]?token|authorization)=/i;
const TRACE = /^[\w.:-]{1,128}$/;

function presentedKey(r) {
    const bearer = /^bearer +(\S+) *$/i.exec(r.headersIn['Authorization'] || '');
    return bearer ? bearer[1] : r.headersIn['X-API-Key'] || '';
}

function keyDigest(r) {
    const key = presentedKey(r);
    return key ? crypto.createHash('sha256').update(key).digest('hex') : '';
}

function verdict(r) {
    const v = r.variables;
    const trace = r.headersIn['X-Request-ID'] || '';
    v.gateway_trace = TRACE.test(trace) ? trace : v.request_id;
    const refusal = refusedClient(r, v) || refusedRoute(r, v);
    v.gateway_refusal = refusal;
    return refusal || 'pass';
}

function refusedClient(r, v) {
    const refusal = keyRefusal(r, v);
    if (refusal) {
        // A whole /64 counts as one stranger: that much every IPv6 customer has.
        v.gateway_stranger = r.rawVariables.binary_remote_addr.slice(0, 8).toString('hex');
    }
    return refusal;
}

function keyRefusal(r, v) {
    if (KEY_IN_ADDRESS.test(v.args || '')) {
        return 'key_in_address';
    }
    if (!v.gateway_record) {
        return presentedKey(r) ? 'key_unknown' : 'key_missing';
    }
    const record = v.gateway_record.split('|');
    v.gateway_client = record[0];
    v.gateway_scope = record[1];
    if (record[5] === 'revoked') {
        return 'key_revoked';
    }
    if (record[5] !== '-' && Date.now() >= Number(record[5]) * 1000) {
        return 'key_expired';
    }
    v.gateway_rate = record[3];
    v.gateway_streams = record[4];
    return record[2] === '-' || v['gateway_source_' + record[2]] === '1' ? '' : 'source_denied';
}

function refusedRoute(r, v) {
    if (!v.gateway_route) {
        return 'route_unknown';
    }
    v.gateway_path = v.uri;
    const route = v.gateway_route.split('|');
    if (route[1].split(',').indexOf(r.method) < 0) {
        return 'method_denied';
    }
    return admitted(v.gateway_scope, route[0], route[2]) ? '' : 'scope_denied';
}

function admitted(scope, service, needed) {
    if (scope === 'admin') {
        return true;
    }
    if (needed !== 'inference') {
        return false;
    }
    return scope === 'inference' || scope.split(',').indexOf(service) >= 0;
}

// The answer to everything that does not reach an engine, in the shape OpenAI's clients understand.
function refuse(r) {
    const v = r.variables;
    const failed = Number(v.status);
    const refusal = failed ? [failed, FAILURES[failed] || 'The request failed.']
        : REFUSALS[v.gateway_refusal] || [403, 'Refused.'];
    if (failed || !v.gateway_refusal) {
        v.gateway_refusal = 'nginx_' + refusal[0];
    }
    const status = refusal[0];
    if (status === 401) {
        r.headersOut['WWW-Authenticate'] = 'Bearer';
    } else if (status === 405 && v.gateway_route) {
        r.headersOut['Allow'] = v.gateway_route.split('|')[1].split(',').join(', ');
    } else if (status === 429) {
        r.headersOut['Retry-After'] = retryAfter(v);
    }
    const type = TYPES[status] || (status < 500 ? 'invalid_request_error' : 'server_error');
    const error = {message: refusal[1], type: type, param: null, code: v.gateway_refusal};
    r.return(status, JSON.stringify({error: error}) + '\n');
}

// Seconds until the next request has a place. nginx does not say when a stream will end: 1.
function retryAfter(v) {
    const perMinute = Number((v.gateway_rate || v.gateway_stranger_rate).split('/')[0]);
    return String(perMinute ? Math.ceil(60 / perMinute) : 1);
}

export default {keyDigest, verdict, refuse};
