variable "TAG" {
  default = "v1"
  validation {
    condition = TAG != ""
    error_message = "no tag"
  }
}
variable "N" { default = 3 }
function "name" {
  params = [x]
  variadic_params = rest
  result = "${upper(x)}-${join("/", rest)}"
}
group "default" { targets = ["app", "many"] }
target "base" {
  context = "."
  args = { A = "1", B = N > 2 ? "big" : null }
  labels = { for k, v in {a = 1, b = 2} : k => "${v}" if v > 1 }
}
target "app" {
  inherits = ["base"]
  tags = ["app:${TAG}", format("%s:%d", name("x", "y"), N), trimspace(<<EOT
    text ${TAG}
    EOT
  )]
  platforms = ["linux/amd64"]
  secret = ["id=a,src=b", { id = "c", env = "D" }]
  cache-to = ["type=registry,ref=x"]
}
target "many" {
  name = "many-${item.k}-${replace(v, ".", "-")}"
  matrix = { item = [{ k = "a" }, { k = "b" }], v = ["1.0", "2.0"] }
  args = merge({ V = v }, try(item.none, {}))
}
