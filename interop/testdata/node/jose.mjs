// A resource server's judgement of DPoP proofs (RFC 9449 §4.3), by jose: for each line of its input, which says what came, a
// line with the thumbprint of the key, or with what is wrong.
import { createHash } from 'node:crypto';
import { createInterface } from 'node:readline';
import { calculateJwkThumbprint, EmbeddedJWK, jwtVerify } from 'jose';

async function judge({ proof, method, uri, nonce, token }) {
	const { payload, protectedHeader } = await jwtVerify(proof, EmbeddedJWK, {
		typ: 'dpop+jwt', algorithms: ['ES256', 'EdDSA', 'RS256'], requiredClaims: ['jti', 'iat', 'htm', 'htu'], maxTokenAge: 60, clockTolerance: 5,
	});
	const expected = { htm: method, htu: uri };
	if (nonce) expected.nonce = nonce;
	if (token) expected.ath = createHash('sha256').update(token).digest('base64url');
	for (const name of ['htm', 'htu', 'nonce', 'ath']) {
		if (payload[name] !== expected[name]) throw new Error(`unexpected "${name}" claim value`);
	}
	const { d, p, q, dp, dq, qi, k, ...rest } = protectedHeader.jwk;
	if (Object.keys(rest).length !== Object.keys(protectedHeader.jwk).length) throw new Error('the key is not a public one');
	return { algorithm: protectedHeader.alg, id: payload.jti, thumbprint: await calculateJwkThumbprint(protectedHeader.jwk, 'sha256') };
}

for await (const line of createInterface({ input: process.stdin })) {
	let answer;
	try {
		answer = await judge(JSON.parse(line));
	} catch (err) {
		answer = { error: `${err.code ?? err.name}: ${err.message}` };
	}
	console.log(JSON.stringify(answer));
}
