-- What people ask of an audit trail, for Athena (athena.sql) and Trino (trino.sql). Name the partitions, account, region and day: only their
-- log files are read.

-- Who did what, newest first
SELECT eventtime, useridentity.arn, eventsource, eventname, sourceipaddress
FROM traild
WHERE account = '111122223333' AND region = 'us-east-1' AND day >= '2026/01/01'
ORDER BY eventtime DESC
LIMIT 100;

-- What was refused, to whom
SELECT useridentity.arn, eventsource, eventname, errorcode, count(*) AS times
FROM traild
WHERE day >= '2026/01/01' AND errorcode IS NOT NULL
GROUP BY useridentity.arn, eventsource, eventname, errorcode
ORDER BY times DESC;

-- What changed anything
SELECT eventtime, useridentity.arn, eventname, requestparameters
FROM traild
WHERE day >= '2026/01/01' AND readonly = 'false'
ORDER BY eventtime;

-- Sign-ins by users without a second factor
SELECT eventtime, useridentity.username, sourceipaddress
FROM traild
WHERE day >= '2026/01/01' AND eventname = 'ConsoleLogin'
  AND json_extract_scalar(additionaleventdata, '$.MFAUsed') = 'No';

-- Where a principal has been active, and since when
SELECT useridentity.arn, account, region, min(eventtime) AS first_seen, max(eventtime) AS last_seen, count(*) AS events
FROM traild
WHERE day >= '2026/01/01' AND useridentity.arn IS NOT NULL
GROUP BY useridentity.arn, account, region
ORDER BY last_seen DESC;
