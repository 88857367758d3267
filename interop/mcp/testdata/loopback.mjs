// The kit's servers listen on all interfaces, and ask for their port at once. Preloaded, this has them listen on the loopback
// interface: not by the host argument of listen, which would have them wait for a look-up, but one step below.
import { Server } from "node:net";

const listen = Server.prototype._listen2;
if (typeof listen !== "function") throw new Error("this Node listens in another way");
Server.prototype._listen2 = function (address, port, addressType, ...rest) {
	return address ? listen.call(this, address, port, addressType, ...rest) : listen.call(this, "127.0.0.1", port, 4, ...rest);
};
