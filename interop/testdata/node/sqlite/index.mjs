import { DatabaseSync } from 'node:sqlite';

export default class Database {
	#db;

	constructor(path, { timeout = 5000 } = {}) {
		this.#db = new DatabaseSync(path, { timeout });
	}

	pragma(text) {
		return this.#db.prepare(`PRAGMA ${text}`).all();
	}

	prepare(sql) {
		const statement = this.#db.prepare(sql);
		return {
			reader: statement.columns().length > 0,
			all: (params) => statement.all(...params),
			iterate: (params) => statement.iterate(...params),
			run: (params) => statement.run(...params),
		};
	}

	close() {
		this.#db.close();
	}
}
