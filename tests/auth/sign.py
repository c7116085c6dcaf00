"""Signs claims with PyJWT: sign.py ALG KEY_FILE KID CLAIMS_JSON"""
import json
import sys

import jwt

alg, key_file, kid, claims = sys.argv[1:]
with open(key_file, "rb") as file:
    key = file.read()
print(jwt.encode(json.loads(claims), key, algorithm=alg, headers={"kid": kid} if kid else None))
