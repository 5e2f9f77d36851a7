"""File names inside the folders that clients, server and runs are made of.

In ``common`` because ``simulations/partition.py`` writes what ``client`` and
``server`` read: one name, so that a client cannot tell a simulation from life.
"""

INTERACTIONS = "interactions.parquet"
CATALOGUE = "catalogue.parquet"
VALIDATION = "validation.parquet"
SETTINGS = "settings.toml"

STUDENT = "student.safetensors"
STUDENT_TRANSFERRED = "student_transferred.safetensors"
TEACHER = "teacher.safetensors"
#: In the server's folder: catalogue and rows of the domain that a teacher comes from.
SOURCE = "source"
TEACHER_SOURCE = "teacher_source.safetensors"
TEACHER_REFINED = "teacher_refined.safetensors"
METRICS = "metrics.jsonl"
SUMMARY = "server.json"
RESULTS = "results.json"
CONFIG = "config.toml"
REPORT = "report.html"
ROUNDS = "rounds"
#: In a run's folder: what the run resumes from.
CHECKPOINT = "checkpoint"

LEDGER = "ledger.sqlite"
ID_KEY = "id.key"
SERVER_KEY = "server.key"
#: In a client's folder: who it is to other clients, and who they are.
IDENTITY_KEY = "keys/identity.key"
ROSTER, AUTHORITY = "roster.json", "ca.crt"
RECEIPTS = "receipts.json"
