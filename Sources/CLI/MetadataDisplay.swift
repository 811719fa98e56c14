import AudioToken
import WeightFile

extension JSONText {
  /// A setting of a weight file as JSON; of a long array, which only programs can use, its length alone.
  init(_ value: MetadataValue) {
    switch value {
    case .bool(let value): self = .bool(value)
    case .string(let value): self = .string(value)
    case .array(let array): self = JSONText(array)
    default: self = value.integer.map(JSONText.integer) ?? value.double.map(JSONText.number) ?? .null
    }
  }

  private static let longestArray = 64

  private init(_ array: MetadataArray) {
    let elements: [JSONText]? =
      array.count > Self.longestArray
      ? nil
      : array.strings?.map(JSONText.string) ?? array.bools?.map(JSONText.bool)
        ?? array.integers?.map(JSONText.integer) ?? array.doubles?.map(JSONText.number)
    self = elements.map(JSONText.array) ?? .object([("count", .integer(array.count))])
  }
}
