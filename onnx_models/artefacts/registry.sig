[
 {
  "signer": "project",
  "manifest_sha256": "bbbe24aee302f1608a454be7e650ed04daad6041478484235999eb2339907c35",
  "signature": "amkafEAnNfACcei6woeJe/xTa5YVSmKqJS6ADy2pQkxsnIsRnjEwSiP8RoslSDLyZ71O+d9EMkp5jCkzY6JiCw=="
 },
 {
  "signer": "project",
  "manifest_sha256": "5c87d53ecbc61662583809b2051c91e32b051c2bde4ed376840881a86ab45915",
  "signature": "DYfDyL8QEaN+p3UaK/arKEWnec1H829gYKQoVIBBUlhxQx7A4z9dn25VeLpU5C+Z7wCjWUg3nNI1JcSPygApDw=="
 }
]
