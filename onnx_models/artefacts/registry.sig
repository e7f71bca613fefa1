[
 {
  "signer": "project",
  "manifest_sha256": "d156b458c431b5e7719be4b300c28754386125e14c5ff886ff841d7f2b5f3ef1",
  "signature": "3ABqhcfnPIN7Q4kfxZvekU8tnFYmwGRGxTHD50CcW7JYdG3lFN4XHZAGIdi/V2OrFcfP7OwqFszpA5qlD23EBg=="
 },
 {
  "signer": "project",
  "manifest_sha256": "ad6e1bfe88f437079779d110136f4cc9a96d9b2b3fe6a1e92c206c5d347c5cff",
  "signature": "gZQqcRaJAuJK85kadHYWU/zMtCw4OX3lupNz+HRT1AYRBoMYtVOE2zYgi8j5KJYtsF1VYXWSNkBzvpFwJ/d9AA=="
 }
]
