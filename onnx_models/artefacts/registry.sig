[
 {
  "signer": "project",
  "manifest_sha256": "0963f463576c80655de7bf5930c6e869bbc3d5f3d85ceee44ac0be6c846bdbbb",
  "signature": "OKis0nZfyN3n0tvqsoMrozM6ksO9/AC/yvr2UBVObTHoFcKHxWbXWrOLSibJMmEnO0aFZ85PAEnI5XetHXHXAw=="
 },
 {
  "signer": "project",
  "manifest_sha256": "359287a7ebeff6ec851fea992070d0b9ba46d2d5de52ac80e4ca38615f3ab580",
  "signature": "LB/mtKzHKWL/tMCgAX07Vh4N3O85WJDhzovxxyOTFTCKoHLAWZmekU/RuDVCsjw4HbeoeQ7BjxNZZ54y+1RGDQ=="
 }
]
