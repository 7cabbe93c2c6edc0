CREATE TABLE compute (
	id SERIAL NOT NULL,
	project VARCHAR NOT NULL,
	view VARCHAR NOT NULL,
	mode VARCHAR NOT NULL,
	tick_from BIGINT NOT NULL,
	tick_to BIGINT NOT NULL,
	sources VARCHAR NOT NULL,
	state VARCHAR NOT NULL,
	planned_at BIGINT NOT NULL,
	planned_by VARCHAR NOT NULL,
	snapshot_id BIGINT,
	rows BIGINT,
	committed_at BIGINT,
	PRIMARY KEY (id),
	CONSTRAINT compute_goes_forward CHECK (tick_to > tick_from)
)
CREATE TABLE materialize (
	id SERIAL NOT NULL,
	project VARCHAR NOT NULL,
	view VARCHAR NOT NULL,
	table_uuid VARCHAR NOT NULL,
	mode VARCHAR NOT NULL,
	sequence_from BIGINT NOT NULL,
	sequence_to BIGINT NOT NULL,
	snapshot_id BIGINT NOT NULL,
	watermark BIGINT NOT NULL,
	state VARCHAR NOT NULL,
	planned_at BIGINT NOT NULL,
	planned_by VARCHAR NOT NULL,
	writes_from BIGINT NOT NULL,
	writes_after_id BIGINT,
	scope VARCHAR,
	place VARCHAR,
	rows_accepted BIGINT,
	rows_rejected BIGINT,
	digest VARCHAR,
	committed_at BIGINT,
	PRIMARY KEY (id),
	CONSTRAINT materialize_goes_forward CHECK (sequence_to > sequence_from)
)
CREATE TABLE store (
	project VARCHAR NOT NULL,
	incarnation VARCHAR NOT NULL,
	follows VARCHAR NOT NULL,
	since BIGINT NOT NULL,
	PRIMARY KEY (project, incarnation),
	CONSTRAINT store_has_one_successor UNIQUE (project, follows)
)
CREATE TABLE erasure (
	id SERIAL NOT NULL,
	project VARCHAR NOT NULL,
	entity VARCHAR NOT NULL,
	join_key VARCHAR NOT NULL,
	key_sha256 VARCHAR NOT NULL,
	state VARCHAR NOT NULL,
	planned_at BIGINT NOT NULL,
	planned_by VARCHAR NOT NULL,
	under_way VARCHAR,
	outcome VARCHAR NOT NULL,
	done_at BIGINT,
	PRIMARY KEY (id)
)
CREATE UNIQUE INDEX compute_corrects_once ON compute (project, view) WHERE mode = 'correct' AND state != 'committed'
CREATE UNIQUE INDEX compute_tiles_time ON compute (project, view, tick_from) WHERE mode IN ('bootstrap', 'live')
CREATE UNIQUE INDEX erasure_once_at_a_time ON erasure (project, join_key, key_sha256) WHERE state = 'planned'
CREATE UNIQUE INDEX materialize_one_at_a_time ON materialize (project, view, table_uuid) WHERE state != 'committed'
CREATE UNIQUE INDEX materialize_tiles_snapshots ON materialize (project, view, table_uuid, sequence_from) WHERE mode = 'interval'
