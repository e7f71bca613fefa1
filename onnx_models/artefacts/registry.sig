[
 {
  "signer": "project",
  "manifest_sha256": "c994b60c674a4f2a086eac0400c2eb4248225d8f575df64cd685d49ccbd95119",
  "signature": "F4seKHviuSjQ+tLKmvzOulcRVScCQGnlAzGOtg5YYPtgRsJAaIuF/B9jB4evq7O6tS6OH+to/+oyAxrACYYfDg=="
 },
 {
  "signer": "project",
  "manifest_sha256": "ad7b792653735afa02d6b9a1708571d199d8984ff9c53d02171ad7a167707135",
  "signature": "MF07ZDm0II8xT/+qUBzsgPRs3c0Epl4oN0hLXa+91sBswfzuYnK5uLNPo76M5QUDU6fMqU9PyxvIKuJRyPpTAw=="
 }
]
