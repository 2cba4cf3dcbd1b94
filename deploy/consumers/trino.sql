-- Trino's Hive connector over the log files of a trail, with partition projection (hive.partition-projection-enabled=true). A log file is one
-- line, so a row of the table is a log file; the view has a row for each event.

CREATE TABLE traild_files (
    records ARRAY(ROW(
        eventversion VARCHAR,
        useridentity ROW(type VARCHAR, principalid VARCHAR, arn VARCHAR, accountid VARCHAR, invokedby VARCHAR, accesskeyid VARCHAR, username VARCHAR),
        eventtime VARCHAR,
        eventsource VARCHAR,
        eventname VARCHAR,
        awsregion VARCHAR,
        sourceipaddress VARCHAR,
        useragent VARCHAR,
        errorcode VARCHAR,
        errormessage VARCHAR,
        requestparameters VARCHAR,
        responseelements VARCHAR,
        eventid VARCHAR,
        readonly VARCHAR,
        eventtype VARCHAR,
        recipientaccountid VARCHAR,
        eventcategory VARCHAR
    )),
    account VARCHAR WITH (partition_projection_type = 'enum', partition_projection_values = ARRAY['111122223333', '111122223334']),
    region VARCHAR WITH (partition_projection_type = 'enum', partition_projection_values = ARRAY['us-east-1', 'eu-central-1', 'ap-southeast-2']),
    day VARCHAR WITH (
        partition_projection_type = 'date',
        partition_projection_format = 'yyyy/MM/dd',
        partition_projection_range = ARRAY['2026/01/01', 'NOW'],
        partition_projection_interval = 1,
        partition_projection_interval_unit = 'DAYS'
    )
)
WITH (
    format = 'OPENX_JSON',
    external_location = 's3://audit-logs/AWSLogs/',
    partitioned_by = ARRAY['account', 'region', 'day'],
    partition_projection_enabled = true,
    partition_projection_location_template = 's3://audit-logs/AWSLogs/${account}/CloudTrail/${region}/${day}'
);

CREATE VIEW traild AS
SELECT event.*, account, region, day
FROM traild_files
CROSS JOIN UNNEST(records) AS event;
