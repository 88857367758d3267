// A Personal Data Server of the AT Protocol, Bluesky's own, with nothing but this machine: its DIDs are kept by a directory
// here. It is told the port, and the folder for its data. Accounts are made by com.atproto.server.createAccount.
import { createServer } from 'node:http';
import { randomBytes } from 'node:crypto';
import { PDS, envToCfg, envToSecrets, readEnv } from '@atproto/pds';

const [port, data] = process.argv.slice(2);

// The directory (https://web.plc.directory) takes every operation, and believes it.
const documents = new Map();
const directory = createServer(async (req, res) => {
	const did = decodeURIComponent(req.url.slice(1));
	if (req.method === 'POST') {
		const op = JSON.parse(Buffer.concat(await req.toArray()));
		documents.set(did, {
			'@context': ['https://www.w3.org/ns/did/v1'],
			id: did,
			alsoKnownAs: op.alsoKnownAs,
			verificationMethod: Object.entries(op.verificationMethods).map(([name, key]) => ({
				id: `${did}#${name}`, type: 'Multikey', controller: did, publicKeyMultibase: key.replace('did:key:', ''),
			})),
			service: Object.entries(op.services).map(([name, { type, endpoint }]) => ({ id: `#${name}`, type, serviceEndpoint: endpoint })),
		});
	}
	const found = documents.get(did);
	res.writeHead(found ? 200 : 404, { 'Content-Type': 'application/did+ld+json' });
	res.end(JSON.stringify(found ?? {}));
});
await new Promise((resolve) => directory.listen(0, '127.0.0.1', resolve));

const secret = () => randomBytes(32).toString('hex');
Object.assign(process.env, {
	PDS_DEV_MODE: '1',
	PDS_HOSTNAME: 'localhost',
	PDS_PORT: port,
	PDS_DATA_DIRECTORY: data,
	PDS_BLOBSTORE_DISK_LOCATION: `${data}/blobs`,
	PDS_DID_PLC_URL: `http://127.0.0.1:${directory.address().port}`,
	PDS_INVITE_REQUIRED: '0',
	PDS_DPOP_SECRET: secret(),
	PDS_JWT_SECRET: secret(),
	PDS_ADMIN_PASSWORD: secret(),
	PDS_PLC_ROTATION_KEY_K256_PRIVATE_KEY_HEX: secret(),
});
const env = readEnv();
const pds = await PDS.create(envToCfg(env), envToSecrets(env));
const listen = pds.app.listen.bind(pds.app);
pds.app.listen = (port) => listen(port, '127.0.0.1');
await pds.start();
