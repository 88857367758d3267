// An authorization server that wants DPoP nonces at its token endpoint and at its userinfo endpoint, a resource server.
// It is told the port, and the client's public keys as a JWK Set, one for each client: "jwt", which signs assertions, and
// "public", which has none.
import { Provider } from 'oidc-provider';

const [port, keys] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
const code = { grant_types: ['authorization_code', 'refresh_token', 'client_credentials'], response_types: ['code'], redirect_uris: ['http://127.0.0.1/callback'] };

const provider = new Provider(issuer, {
	clients: [
		{ ...code, client_id: 'jwt', application_type: 'native', token_endpoint_auth_method: 'private_key_jwt', jwks: JSON.parse(keys), dpop_bound_access_tokens: false },
		{ ...code, client_id: 'bearer', application_type: 'native', token_endpoint_auth_method: 'client_secret_basic', client_secret: 's+cret/', dpop_bound_access_tokens: false },
		{ ...code, grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'], client_id: 'public', application_type: 'native', token_endpoint_auth_method: 'none', dpop_bound_access_tokens: true },
		{ ...code, grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'], client_id: 'cli', application_type: 'native', token_endpoint_auth_method: 'none', dpop_bound_access_tokens: false },
	],
	clientAuthMethods: ['private_key_jwt', 'client_secret_basic', 'none'],
	findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
	issueRefreshToken: async () => true,
	rotateRefreshToken: true,
	pkce: { required: () => true },
	scopes: ['openid', 'offline_access', 'read', 'write'],
	ttl: { AccessToken: 3600, ClientCredentials: 3600, RefreshToken: 86400 },
	features: {
		clientCredentials: { enabled: true },
		deviceFlow: { enabled: true },
		devInteractions: { enabled: true },
		dPoP: { enabled: true, nonceSecret: Buffer.alloc(32, 7), requireNonce: () => true },
		introspection: { enabled: true },
		pushedAuthorizationRequests: { enabled: true },
		resourceIndicators: {
			enabled: true,
			getResourceServerInfo: (_, resource) => ({ scope: 'read write', audience: resource, accessTokenFormat: 'opaque' }),
			useGrantedResource: () => true,
		},
		revocation: { enabled: true },
	},
});
provider.listen(Number(port), '127.0.0.1');
